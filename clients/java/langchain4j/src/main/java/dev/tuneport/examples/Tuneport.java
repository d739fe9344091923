package dev.tuneport.examples;

/** Where the server is, from the environment: TUNEPORT_BASE_URL, TUNEPORT_API_KEY, TUNEPORT_MODEL. */
final class Tuneport {

    static final String BASE_URL = setting("TUNEPORT_BASE_URL", "http://127.0.0.1:8000/v1");
    static final String API_KEY = setting("TUNEPORT_API_KEY", "no-auth");

    private Tuneport() {}

    /** The fine-tuned model to call. */
    static String model() {
        String model = System.getenv("TUNEPORT_MODEL");
        if (model == null) {
            throw new IllegalStateException("set TUNEPORT_MODEL to an ft: name; GET /v1/models lists them");
        }
        return model;
    }

    private static String setting(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null ? otherwise : value;
    }
}
