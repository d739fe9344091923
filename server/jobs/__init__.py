"""Fine-tuning jobs: checking and queueing, starting trainers, preparing their directories, publishing results."""
