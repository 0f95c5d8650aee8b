"""What a model says, as a loss to train on or as predictions to score.

Others take `answer_loss`, `evaluate_tasks`, `choice_scores` and `TaskHeads`. It imports `model`,
`tasks` and `batches`.
"""
