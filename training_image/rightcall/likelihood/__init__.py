"""Log-probabilities over prefix trees.

answer_head.py     log-probabilities of answer tokens for TRL's trainers
prefix_tree.py     token sequences as one tree
scorer.py          continuations scored in one pass, or plainly where a model cannot
tree_attention.py  attention over a flattened tree
"""
