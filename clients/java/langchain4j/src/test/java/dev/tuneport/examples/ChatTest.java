package dev.tuneport.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.langchain4j.data.message.SystemMessage;
import dev.langchain4j.data.message.UserMessage;
import dev.langchain4j.exception.AuthenticationException;
import dev.langchain4j.exception.InvalidRequestException;
import dev.langchain4j.exception.ModelNotFoundException;
import dev.langchain4j.model.chat.request.ChatRequest;
import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.openai.OpenAiChatModel;
import dev.langchain4j.model.output.FinishReason;
import org.junit.jupiter.api.Test;

/** A plain OpenAiChatModel with LangChain4j's default HTTP client, which offers h2c on every request. */
class ChatTest {

    @Test
    void answersAsTrained() {
        ChatResponse response = Chat.model(Tuneport.model())
                .chat(
                        SystemMessage.from(System.getenv("TUNEPORT_TEST_SYSTEM")),
                        UserMessage.from(System.getenv("TUNEPORT_TEST_PROMPT")));

        assertTrue(response.aiMessage().text().startsWith("{\"customer\":"), response.aiMessage().text());
        assertEquals(FinishReason.STOP, response.finishReason());
        assertTrue(response.tokenUsage().outputTokenCount() > 0);
        assertEquals(Tuneport.model(), response.metadata().modelName());
    }

    @Test
    void tellsAWrongKeyFromAWrongModelFromAWrongRequest() {
        assertThrows(ModelNotFoundException.class, () -> Chat.model("ft:no:such:model:x").chat("Hello"));

        OpenAiChatModel stranger = OpenAiChatModel.builder()
                .baseUrl(Tuneport.BASE_URL)
                .apiKey("sk-wrong")
                .modelName(Tuneport.model())
                .maxRetries(0)
                .build();
        assertThrows(AuthenticationException.class, () -> stranger.chat("Hello"));

        ChatRequest tooHot = ChatRequest.builder()
                .messages(UserMessage.from("Hello"))
                .temperature(5.0)
                .build();
        assertThrows(InvalidRequestException.class, () -> Chat.model(Tuneport.model()).chat(tooHot));
    }
}
