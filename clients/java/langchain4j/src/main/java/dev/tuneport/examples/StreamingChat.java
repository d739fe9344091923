package dev.tuneport.examples;

import dev.langchain4j.model.chat.StreamingChatModel;
import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import dev.langchain4j.model.openai.OpenAiStreamingChatModel;
import java.util.concurrent.CompletableFuture;
import java.util.function.Consumer;

/** Stream an answer, piece by piece. */
public final class StreamingChat {

    private StreamingChat() {}

    /** The whole answer; {@code onPiece} sees each piece as it comes. */
    static CompletableFuture<ChatResponse> ask(String name, String question, Consumer<String> onPiece) {
        StreamingChatModel model = OpenAiStreamingChatModel.builder()
                .baseUrl(Tuneport.BASE_URL)
                .apiKey(Tuneport.API_KEY)
                .modelName(name)
                .build();
        CompletableFuture<ChatResponse> answer = new CompletableFuture<>();
        model.chat(question, new StreamingChatResponseHandler() {
            @Override
            public void onPartialResponse(String piece) {
                onPiece.accept(piece);
            }

            @Override
            public void onCompleteResponse(ChatResponse response) {
                answer.complete(response);
            }

            @Override
            public void onError(Throwable error) {
                answer.completeExceptionally(error);
            }
        });
        return answer;
    }

    public static void main(String[] arguments) {
        ask(Tuneport.model(), arguments[0], System.out::print).join();
        System.out.println();
    }
}
