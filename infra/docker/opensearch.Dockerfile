# The official image, and the plugin that knows every script's words.
FROM opensearchproject/opensearch:3.8.0
RUN /usr/share/opensearch/bin/opensearch-plugin install --batch analysis-icu
