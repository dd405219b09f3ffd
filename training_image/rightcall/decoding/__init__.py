"""What a model writes: many answers at once, over prompts whose shared beginnings are computed once.

decoder.py            prompts → answers, tree by tree
next_token.py         the next token of every open answer: greedy or sampled, free or constrained
partial_attention.py  attention to a part of the keys, and parts put together
plain.py              the same answers from a model that cannot be fed trees
tree_store.py         keys and values of a prefix tree and of the answers that grow out of it
"""
