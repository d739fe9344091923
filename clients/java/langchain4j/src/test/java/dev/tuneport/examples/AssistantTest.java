package dev.tuneport.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;

import dev.langchain4j.data.message.ToolExecutionResultMessage;
import dev.langchain4j.memory.chat.MessageWindowChatMemory;
import dev.langchain4j.model.chat.request.ChatRequest;
import dev.langchain4j.model.chat.request.ChatRequestParameters;
import dev.langchain4j.model.chat.request.ToolChoice;
import dev.langchain4j.model.openai.OpenAiChatRequestParameters;
import dev.langchain4j.service.AiServices;
import org.junit.jupiter.api.Test;

class AssistantTest {

    static final String BASE = System.getenv("TUNEPORT_BASE_MODEL");

    @Test
    void callsTheToolAndAnswersWithItsResult() {
        Assistant.Weather weather = new Assistant.Weather();
        Assistant.Helper helper = AiServices.builder(Assistant.Helper.class)
                .chatModel(Assistant.model(BASE))
                .tools(weather)
                .chatRequestTransformer(AssistantTest::firstTheTool)
                .build();

        String answer = helper.chat("What is the weather in Paris?");

        assertEquals(1, weather.asked.size());
        assertFalse(answer.isBlank());
    }

    /** The call is required before there is a result: a base of 135M parameters does not see by itself that it needs one. */
    private static ChatRequest firstTheTool(ChatRequest request) {
        boolean answered = request.messages().stream().anyMatch(ToolExecutionResultMessage.class::isInstance);
        ChatRequestParameters choice = OpenAiChatRequestParameters.builder()
                .toolChoice(answered ? ToolChoice.NONE : ToolChoice.REQUIRED)
                .parallelToolCalls(false)
                .build();
        return request.toBuilder()
                .parameters(request.parameters().overrideWith(choice))
                .build();
    }

    @Test
    void readsARecord() {
        Assistant.Person person = Assistant.reader(BASE).read("Ann lives in Rome.");

        assertNotNull(person.name());
        assertNotNull(person.city());
    }

    @Test
    void remembersWhatWasSaid() {
        MessageWindowChatMemory memory = MessageWindowChatMemory.withMaxMessages(10);
        Assistant.Helper helper = AiServices.builder(Assistant.Helper.class)
                .chatModel(Assistant.model(BASE))
                .chatMemory(memory)
                .build();

        helper.chat("What is the capital of France?");
        helper.chat("And of Italy?");

        assertEquals(4, memory.messages().size());
    }
}
