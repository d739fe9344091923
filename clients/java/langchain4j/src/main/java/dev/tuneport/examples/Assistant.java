package dev.tuneport.examples;

import dev.langchain4j.agent.tool.P;
import dev.langchain4j.agent.tool.Tool;
import dev.langchain4j.memory.chat.MessageWindowChatMemory;
import dev.langchain4j.model.chat.Capability;
import dev.langchain4j.model.chat.ChatModel;
import dev.langchain4j.model.openai.OpenAiChatModel;
import dev.langchain4j.service.AiServices;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/** AI Services: an interface becomes an assistant with tools and a memory, or a reader of structured data. */
public final class Assistant {

    /** Talks, remembers, and looks things up. */
    interface Helper {
        String chat(String message);
    }

    /** Where somebody lives. */
    record Person(String name, String city) {}

    /** Reads a person out of a text; the answer is held to the record's schema. */
    interface Reader {
        Person read(String text);
    }

    /** What the model may look up. */
    static final class Weather {
        final List<String> asked = new CopyOnWriteArrayList<>();

        @Tool("The weather of a city")
        String getWeather(@P("city") String city) {
            asked.add(city);
            return "Rain, 7 degrees.";
        }
    }

    private Assistant() {}

    static ChatModel model(String name) {
        return OpenAiChatModel.builder()
                .baseUrl(Tuneport.BASE_URL)
                .apiKey(Tuneport.API_KEY)
                .modelName(name)
                .temperature(0.0)
                .maxTokens(80)
                .supportedCapabilities(Capability.RESPONSE_FORMAT_JSON_SCHEMA)
                .strictJsonSchema(true)
                .build();
    }

    static Helper helper(String name, Weather weather) {
        return AiServices.builder(Helper.class)
                .chatModel(model(name))
                .tools(weather)
                .chatMemory(MessageWindowChatMemory.withMaxMessages(20))
                .build();
    }

    static Reader reader(String name) {
        return AiServices.create(Reader.class, model(name));
    }

    public static void main(String[] arguments) {
        System.out.println(helper(Tuneport.model(), new Weather()).chat(arguments[0]));
    }
}
