package dev.tuneport.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import org.junit.jupiter.api.Test;

/** The JDK's own client: it asks to upgrade to h2c by default, and keeps its connections. */
class ConnectionTest {

    private static HttpResponse<String> ask(HttpClient client) throws IOException, InterruptedException {
        String body = "{\"model\":\"" + ModelsTest.BASE + "\",\"max_tokens\":2,"
                + "\"messages\":[{\"role\":\"user\",\"content\":\"Grüße aus Köln 🙂\"}]}";
        HttpRequest request = HttpRequest.newBuilder(URI.create(Tuneport.BASE_URL + "/chat/completions"))
                .header("Authorization", "Bearer " + Tuneport.API_KEY)
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build();
        return client.send(request, HttpResponse.BodyHandlers.ofString());
    }

    @Test
    void aBodyArrivesWhichEverVersionIsAskedFor() throws Exception {
        for (HttpClient.Version version : HttpClient.Version.values()) {
            if (version.name().equals("HTTP_3")) {
                continue; // of JDK 26, and never over plain TCP
            }
            HttpClient client = HttpClient.newBuilder().version(version).build();
            for (int request = 0; request < 3; request++) {
                HttpResponse<String> response = ask(client);
                assertEquals(200, response.statusCode(), response.body());
                assertTrue(response.body().contains("\"chat.completion\""));
            }
        }
    }
}
