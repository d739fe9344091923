"""OpenAI's graders: a number for an answer. Adding one: its description in `models.py`, its score in `grade.py`."""
