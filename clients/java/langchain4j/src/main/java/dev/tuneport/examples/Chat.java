package dev.tuneport.examples;

import dev.langchain4j.data.message.SystemMessage;
import dev.langchain4j.data.message.UserMessage;
import dev.langchain4j.model.chat.ChatModel;
import dev.langchain4j.model.openai.OpenAiChatModel;

/** Ask a fine-tuned model: base URL, key and model name are the only settings. */
public final class Chat {

    private Chat() {}

    static ChatModel model(String name) {
        return OpenAiChatModel.builder()
                .baseUrl(Tuneport.BASE_URL)
                .apiKey(Tuneport.API_KEY)
                .modelName(name)
                .build();
    }

    public static void main(String[] arguments) {
        String system = arguments[0];
        String user = arguments[1];
        System.out.println(model(Tuneport.model())
                .chat(SystemMessage.from(system), UserMessage.from(user))
                .aiMessage()
                .text());
    }
}
