"""How good a model is: figures of answers, labels and scores, and the law that losses follow."""
