"""Fine-tuning jobs: the queue, the trainers it starts, what they need and what they leave."""
