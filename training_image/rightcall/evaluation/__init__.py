"""Measures a model.

generation.py         a sample answered freely, each answer judged
mine.py               the stage `mine`: answers sampled on training steps, judged, made into pairs
multiple_choice.py    items scored as lm-eval scores them
questions.py          an item as token ids: one prompt, four answers
score.py              the stage score
when2call_prompts.py  the prompts of NVIDIA's lm-eval tasks, character for character
"""
