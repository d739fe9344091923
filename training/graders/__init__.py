"""OpenAI's graders, which score answers. To add one: its description in `models.py`, its score in `grade.py`."""
