"""A server that is killed leaves no worker behind to hold memory: their queues have an end in their own hands."""

import os
import threading
from multiprocessing import parent_process


def end_with_server() -> None:
    """End this process, which multiprocessing started, as soon as the one that started it is gone."""
    server = parent_process()
    if server is None:
        return

    def wait() -> None:
        server.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="end-with-server").start()
