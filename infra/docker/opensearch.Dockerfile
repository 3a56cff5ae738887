# OpenSearch with one plugin, which knows every script's words: the same files as in `make up`. The other plugins of the
# image are removed; one of them, Query Insights, stores queries with names and addresses for a week.
FROM maven:3.9.9-eclipse-temurin-21@sha256:3a4ab3276a087bf276f79cae96b1af04f53731bec53fb2e651aca79e4b10211e AS plugin
WORKDIR /plugin
COPY opensearch-plugin.sha256 /
RUN for artifact in org.opensearch.plugin:analysis-icu-client:3.8.0 org.apache.lucene:lucene-analysis-icu:10.5.0 \
        com.ibm.icu:icu4j:77.1; do \
        mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
            -Dartifact=$artifact -DoutputDirectory=/plugin || exit 1; \
    done \
    && sha256sum --check /opensearch-plugin.sha256 \
    && printf '%s\n' 'description=ICU analysis' version=3.8.0 opensearch.version=3.8.0 java.version=21 \
        name=analysis-icu classname=org.opensearch.plugin.analysis.icu.AnalysisICUPlugin > plugin-descriptor.properties


FROM opensearchproject/opensearch:3.8.0@sha256:bcc1797519726ceb6d651d4a3e60b7c30da91793914a8dfe75fd441d4f641509
# The keystore holds nothing. OpenSearch would create it at its start, in a file system that is then read-only.
RUN rm -rf /usr/share/opensearch/plugins/* && /usr/share/opensearch/bin/opensearch-keystore create
COPY --from=plugin /plugin /usr/share/opensearch/plugins/analysis-icu
