package dev.tuneport.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.langchain4j.http.client.jdk.JdkHttpClient;
import dev.langchain4j.model.chat.ChatModel;
import dev.langchain4j.model.openai.OpenAiChatModel;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.List;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/** A server with TLS on: Java's client agrees on HTTP/2 by itself, for LangChain4j too. */
@EnabledIfEnvironmentVariable(named = "TUNEPORT_TLS_CERTIFICATE", matches = ".+")
class Http2Test {

    private static final String QUESTION = "What is the capital of France?";

    private static HttpClient.Builder trusting() throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream stream = Files.newInputStream(Path.of(System.getenv("TUNEPORT_TLS_CERTIFICATE")))) {
            store.setCertificateEntry(
                    "tuneport", CertificateFactory.getInstance("X.509").generateCertificate(stream));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return HttpClient.newBuilder().sslContext(context);
    }

    @Test
    void speaksHttp2AndStreams() throws Exception {
        String body = "{\"model\":\"" + System.getenv("TUNEPORT_TLS_MODEL") + "\",\"max_tokens\":20,\"stream\":true,"
                + "\"messages\":[{\"role\":\"user\",\"content\":\"" + QUESTION + "\"}]}";
        HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("TUNEPORT_TLS_URL") + "/chat/completions"))
                .header("Authorization", "Bearer " + System.getenv("TUNEPORT_TLS_KEY"))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build();
        HttpClient client = trusting().build();

        for (int turn = 0; turn < 3; turn++) {
            var response = client.send(request, HttpResponse.BodyHandlers.ofLines());
            List<String> lines = response.body().filter(line -> !line.isEmpty()).toList();

            assertEquals(200, response.statusCode());
            assertEquals(HttpClient.Version.HTTP_2, response.version());
            assertEquals("data: [DONE]", lines.get(lines.size() - 1));
        }
    }

    @Test
    void answersLangChain4j() throws Exception {
        ChatModel model = OpenAiChatModel.builder()
                .baseUrl(System.getenv("TUNEPORT_TLS_URL"))
                .apiKey(System.getenv("TUNEPORT_TLS_KEY"))
                .modelName(System.getenv("TUNEPORT_TLS_MODEL"))
                .httpClientBuilder(JdkHttpClient.builder().httpClientBuilder(trusting()))
                .temperature(0.0)
                .build();

        assertTrue(model.chat(QUESTION).contains("Paris"));
    }
}
