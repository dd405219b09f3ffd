"""Makes a model.

base.py         the stage base: any model folder or GGUF file to a checked safetensors folder
callbacks.py    metrics.jsonl, the stop flag, the clock, a loss that is NaN
checkpoints.py  what a resumed run needs to end as an undisturbed one
dpo.py          the stage dpo
encoding.py     rows to token ids and loss factors
health.py       signs that preference training goes wrong while its loss falls
loop.py         what SFT and DPO share around their trainers
probe.py        training steps that are set aside, answered freely now and then
reference.py    the reference model's log-probabilities, once a pair
sft.py          the stage sft
spectrum.py     which projections carry most signal
weights.py      the model loaded, its trained parameters chosen, written
"""
