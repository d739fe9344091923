"""HTTP around the routers: identity, rate limits, error answers, streaming, the web server."""
