"""Measures a model.

mine.py               the stage `mine`: answers sampled on training steps, judged, made into pairs
model.py              the model that is scored, loaded
multiple_choice.py    items scored as lm-eval scores them
progress.py           how far all of scoring is, and when it will be done
questions.py          an item as token ids: one prompt, four answers
score.py              the stage score
steps.py              the turns that a model is asked to write
when2call_prompts.py  the prompts of NVIDIA's lm-eval tasks, character for character
writing.py            steps answered freely and under the grammar, each answer judged
"""
