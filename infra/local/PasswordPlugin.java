package consumers;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.List;
import java.util.function.UnaryOperator;

import org.opensearch.common.settings.Setting;
import org.opensearch.common.settings.Settings;
import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;
import org.opensearch.core.rest.RestStatus;
import org.opensearch.plugins.ActionPlugin;
import org.opensearch.plugins.NetworkPlugin;
import org.opensearch.plugins.Plugin;
import org.opensearch.rest.BytesRestResponse;
import org.opensearch.rest.RestChannel;
import org.opensearch.rest.RestHandler;
import org.opensearch.rest.RestRequest;
import org.opensearch.transport.TransportInterceptor;
import org.opensearch.transport.TransportRequest;
import org.opensearch.transport.TransportRequestHandler;
import org.opensearch.transport.client.node.NodeClient;

/**
 * Refuses HTTP requests without the password, and requests of other nodes if this node is alone.
 *
 * The loopback interface alone does not protect the documents: every user of the machine can connect to it.
 */
public final class PasswordPlugin extends Plugin implements ActionPlugin, NetworkPlugin {
    private static final Setting<String> AUTHORIZATION = Setting.simpleString(
        "consumers.authorization", Setting.Property.NodeScope, Setting.Property.Filtered);
    private static final String TEXT = "text/plain; charset=UTF-8";

    private final byte[] authorization;
    private final boolean isAlone;

    public PasswordPlugin(Settings settings) {
        authorization = bytes(AUTHORIZATION.get(settings));
        if (authorization.length == 0) {
            throw new IllegalArgumentException("consumers.authorization is not set");
        }
        isAlone = "single-node".equals(settings.get("discovery.type"));
    }

    @Override
    public List<Setting<?>> getSettings() {
        return List.of(AUTHORIZATION);
    }

    @Override
    public UnaryOperator<RestHandler> getRestHandlerWrapper(ThreadContext context) {
        return handler -> new RestHandler.Wrapper(handler) {
            @Override
            public void handleRequest(RestRequest request, RestChannel channel, NodeClient client) throws Exception {
                String sent = request.header("Authorization");
                if (sent == null || !MessageDigest.isEqual(bytes(sent), authorization)) {
                    channel.sendResponse(new BytesRestResponse(RestStatus.UNAUTHORIZED, TEXT, "wrong password"));
                    return;
                }
                super.handleRequest(request, channel, client);
            }
        };
    }

    @Override
    public List<TransportInterceptor> getTransportInterceptors(NamedWriteableRegistry registry, ThreadContext context) {
        return List.of(new TransportInterceptor() {
            @Override
            public <T extends TransportRequest> TransportRequestHandler<T> interceptHandler(
                String action, String executor, boolean force, TransportRequestHandler<T> handler) {
                return (request, channel, task) -> {
                    if (isAlone && !"direct".equals(channel.getChannelType())) {
                        throw new SecurityException("this node accepts no requests of other nodes");
                    }
                    handler.messageReceived(request, channel, task);
                };
            }
        });
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
