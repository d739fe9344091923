package dev.tuneport.examples;

import ai.djl.MalformedModelException;
import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import ai.djl.inference.Predictor;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.Shape;
import ai.djl.repository.zoo.Criteria;
import ai.djl.repository.zoo.ModelNotFoundException;
import ai.djl.repository.zoo.ZooModel;
import ai.djl.translate.NoopTranslator;
import ai.djl.translate.TranslateException;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.hubspot.jinjava.Jinjava;
import com.hubspot.jinjava.JinjavaConfig;
import com.hubspot.jinjava.LegacyOverrides;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/**
 * A fine-tuned model inside the JVM, without a server and without a network: the folder that `tuneport export MODEL
 * --format onnx` wrote, on DJL's ONNX Runtime engine, with a cache of keys and values.
 */
public final class LocalModel implements AutoCloseable {

    private final ZooModel<NDList, NDList> model;
    private final Predictor<NDList, NDList> predictor;
    private final HuggingFaceTokenizer tokenizer;
    private final Jinjava jinja = new Jinjava(JinjavaConfig.newBuilder()
            .withTrimBlocks(true)
            .withLstripBlocks(true)
            .withLegacyOverrides(LegacyOverrides.newBuilder()
                    .withEvaluateMapKeys(true)
                    .withUseNaturalOperatorPrecedence(true)
                    .withParseWhitespaceControlStrictly(true)
                    .build())
            .build());
    private final String template;
    private final long endOfTurn;
    private final int layers;
    private final Shape nothing;

    public LocalModel(Path folder) throws IOException, ModelNotFoundException, MalformedModelException {
        JsonObject config = JsonParser.parseString(Files.readString(folder.resolve("config.json")))
                .getAsJsonObject();
        int heads = config.get("num_key_value_heads").getAsInt();
        int width = config.has("head_dim") && !config.get("head_dim").isJsonNull()
                ? config.get("head_dim").getAsInt()
                : config.get("hidden_size").getAsInt() / config.get("num_attention_heads").getAsInt();
        endOfTurn = config.get("eos_token_id").getAsLong();
        layers = config.get("num_hidden_layers").getAsInt();
        nothing = new Shape(1, heads, 0, width);
        template = Files.readString(folder.resolve("chat_template.jinja"));
        tokenizer = HuggingFaceTokenizer.builder()
                .optTokenizerPath(folder)
                .optTruncation(false) // the default cuts at 512 tokens
                .optAddSpecialTokens(false) // the template has put them in
                .build();
        model = Criteria.builder()
                .setTypes(NDList.class, NDList.class)
                .optModelPath(folder)
                .optModelName("model")
                .optEngine("OnnxRuntime")
                .optTranslator(new NoopTranslator())
                .build()
                .loadModel();
        predictor = model.newPredictor();
    }

    /**
     * The greedy answer to a conversation.
     *
     * @param messages role and content of each
     * @param onText gets the answer as it comes, in whole characters
     */
    public String generate(List<Map<String, String>> messages, int maxTokens, Consumer<String> onText)
            throws TranslateException {
        long[] answer = new long[maxTokens];
        int length = 0;
        String told = "";
        long[] next = tokenizer.encode(prompt(messages)).getIds();
        NDManager held = model.getNDManager().newSubManager();
        try {
            NDList past = new NDList();
            for (int part = 0; part < 2 * layers; part++) {
                past.add(held.create(new float[0], nothing));
            }
            while (length < maxTokens) {
                NDList input = new NDList(held.create(next, new Shape(1, next.length)));
                input.addAll(past);
                NDList output = predictor.predict(input);
                NDManager kept = model.getNDManager().newSubManager();
                output.attach(kept);
                held.close(); // the step's other arrays; the next one needs the new cache only
                held = kept;
                long token = best(output.head().toFloatArray());
                if (token == endOfTurn) {
                    break;
                }
                answer[length++] = token;
                past = output.subNDList(1);
                next = new long[] {token};
                String text = tokenizer.decode(Arrays.copyOf(answer, length), true);
                if (!text.endsWith("\uFFFD")) { // half a character waits for its other half
                    onText.accept(text.substring(told.length()));
                    told = text;
                }
            }
        } finally {
            held.close();
        }
        return told;
    }

    /** The conversation as the model was trained to read it. */
    String prompt(List<Map<String, String>> messages) {
        return jinja.render(template, Map.of("messages", messages, "add_generation_prompt", true));
    }

    private static long best(float[] logits) {
        int best = 0;
        for (int token = 1; token < logits.length; token++) {
            if (logits[token] > logits[best]) {
                best = token;
            }
        }
        return best;
    }

    @Override
    public void close() {
        predictor.close();
        model.close();
        tokenizer.close();
    }

    public static void main(String[] arguments) throws Exception {
        try (LocalModel model = new LocalModel(Path.of(arguments[0]))) {
            List<Map<String, String>> messages = List.of(Map.of("role", "user", "content", arguments[1]));
            model.generate(messages, 200, System.out::print);
            System.out.println();
        }
    }
}
