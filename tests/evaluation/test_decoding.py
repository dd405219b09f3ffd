"""Decoding over prefix trees: it writes what each prompt alone would get, whatever is decoded beside it."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, BloomConfig, GenerationConfig, LlamaConfig, MistralConfig, Qwen3Config

from rightcall.decoding import decoder as decoding
from rightcall.decoding import partial_attention, tree_store
from rightcall.decoding.decoder import Decoder
from rightcall.decoding.next_token import Sampling
from rightcall.decoding.tree_store import chains, starts_of_chains
from rightcall.errors import ScoringError
from rightcall.likelihood.prefix_tree import PrefixTree

VOCABULARY, END = 24, 1
# Deep enough to nest and to branch, small enough to repeat itself
PROMPTS = st.lists(st.lists(st.integers(2, 4), min_size=1, max_size=9), min_size=1, max_size=9)
STEM = list(range(2, 14))
CONVERSATIONS = [
    *(STEM + [5, 6, 7, 8, 9, 10][:stop] for stop in (1, 2, 4, 6)),  # steps of one conversation: nested
    *(STEM + [5, 9, 9, 2][:stop] for stop in (2, 4)),
    [*STEM, 20, 21],
    [*STEM, 20, 21],  # the same again
]


def random_model(kind: Any = LlamaConfig, seed: int = 0, **more: Any) -> Any:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = kind(vocab_size=VOCABULARY, max_position_embeddings=64, **sizes, **more)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # with the usual weights all tokens are about equally likely
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    return model.eval()


@pytest.fixture(scope="module")
def llama() -> Any:
    return random_model(num_key_value_heads=2)


@pytest.fixture(scope="module")
def decoder(llama: Any) -> Decoder:
    return Decoder(llama, [END], pad_id=END)


def alone(model: Any, prompt: Sequence[int], max_new_tokens: int) -> list[int]:
    """transformers' own greedy answer to one prompt."""
    settings = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=END, pad_token_id=END)
    ids = torch.tensor([list(prompt)])
    new = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)[0]
    written = new[len(prompt) :].tolist()
    return written[: written.index(END)] if END in written else written


class Only:
    """Tokens of one parity only, and an end after at least `least` of them."""

    def __init__(self, parity: int, least: int) -> None:
        self.parity, self.least, self.accepted = parity, least, []

    def mask(self) -> np.ndarray:
        allowed = np.arange(VOCABULARY) % 2 == self.parity
        allowed[END] = len(self.accepted) >= self.least
        return allowed

    def accept(self, token: int) -> None:
        assert self.mask()[token]
        self.accepted.append(token)


# What is seen


@hypothesis_settings(deadline=None)  # the machine may be busy
@given(PROMPTS, st.data())
def test_chains_show_every_open_answer_its_path_and_nothing_beside_it(prompts: list[list[int]], data: Any) -> None:
    tree = PrefixTree.build([[*prompt, 0] for prompt in prompts])
    rows = data.draw(st.lists(st.integers(0, len(prompts) - 1), min_size=1, unique=True))
    paths = sorted((tree.paths[row].tolist() for row in rows), key=lambda path: path[-1])
    found = chains(tree, starts_of_chains(tree), np.array([path[-1] for path in paths]))
    for row, path in enumerate(paths):
        seen = [
            node
            for start, stop, first, last in found
            if first <= row < last
            for node in range(start, stop)
            if node <= path[-1]  # what lies deeper is masked
        ]
        assert sorted(seen) == path
    for start, stop, first, last in found:
        assert first < last
        assert np.diff(tree.depths[start:stop]).tolist() == [1] * (stop - start - 1)


@hypothesis_settings(deadline=None)  # the machine may be busy
@given(PROMPTS, st.integers(1, 4), st.data())
def test_blocks_of_a_pass_show_every_node_its_path(prompts: list[list[int]], size: int, data: Any) -> None:
    tree = PrefixTree.build([[*prompt, 0] for prompt in prompts])
    start = data.draw(st.integers(0, len(tree) - 1))
    stop = data.draw(st.integers(start + 1, len(tree)))
    mask = tree.mask()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_store, "BLOCK", size)
        blocks = tree_store.cut(tree.ends, start, stop, torch.device("cpu"))
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(stop - start))
    for block in blocks:
        for query, unseen in enumerate(block.unseen.numpy()):
            seen = [*range(block.shared), *block.others.numpy()[~unseen]]
            assert seen == mask[start + block.start + query].nonzero()[0].tolist()


@pytest.mark.parametrize("fused", [True, False])
def test_parts_of_attention_put_together_are_the_whole(monkeypatch: pytest.MonkeyPatch, fused: bool) -> None:
    if not fused:
        monkeypatch.setattr(partial_attention, "_fused", None)
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 5, 8), torch.randn(2, 12, 8), torch.randn(2, 12, 8)
    bias = torch.zeros(5, 5).masked_fill_(torch.ones(5, 5).triu(1).bool(), float("-inf"))
    whole = partial_attention.attend(query, key[:, 7:], value[:, 7:], 0.3, bias)
    parts = [
        (slice(0, 3), partial_attention.attend(query[:, :3], key[:, :4], value[:, :4], 0.3)),
        (slice(2, 5), partial_attention.attend(query[:, 2:], key[:, 4:7], value[:, 4:7], 0.3)),
    ]
    mask = torch.ones(5, 12, dtype=torch.bool)
    mask[3:, :4], mask[:2, 4:7], mask[:, 7:] = False, False, torch.ones(5, 5).tril().bool()
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3)
    assert torch.allclose(partial_attention.merge(whole, parts), expected, atol=1e-5)


# What is written


@hypothesis_settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompts=PROMPTS)
def test_answers_are_those_of_each_prompt_alone(llama: Any, decoder: Decoder, prompts: list[list[int]]) -> None:
    assert decoder.uses_trees
    answers = decoder.decode(prompts, max_new_tokens=5, low_precision=False)
    assert answers == [alone(llama, prompt, 5) for prompt in prompts]


@pytest.mark.parametrize(
    "prompts", [CONVERSATIONS, [STEM], [[5]], [STEM] * 3, [[2, 3], [4, 5, 6], [7]], [STEM, STEM[:4], [9]]]
)
def test_nested_equal_single_and_strange_prompts(llama: Any, decoder: Decoder, prompts: list[list[int]]) -> None:
    answers = decoder.decode(prompts, max_new_tokens=12, low_precision=False)
    assert answers == [alone(llama, prompt, 12) for prompt in prompts]


def test_weights_are_cast_once_to_what_autocast_makes_of_them(llama: Any, decoder: Decoder) -> None:
    weights = dict(llama.named_parameters())
    inner = llama.get_decoder()
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = inner(torch.tensor([STEM])).last_hidden_state
        with decoder.autocast(low_precision=True):
            assert {layer.weight.dtype for layer in inner.modules() if isinstance(layer, torch.nn.Linear)} == {
                torch.bfloat16
            }
            assert torch.equal(inner(torch.tensor([STEM])).last_hidden_state, expected)
        with decoder.autocast(low_precision=False):
            assert {parameter.dtype for parameter in llama.parameters()} == {torch.float32}
    with pytest.raises(KeyboardInterrupt), decoder.autocast(low_precision=True):
        raise KeyboardInterrupt
    after = dict(llama.named_parameters())
    assert weights.keys() == after.keys()
    assert all(after[name] is weight for name, weight in weights.items())


def test_no_prompts_no_answers(decoder: Decoder) -> None:
    assert decoder.decode([], max_new_tokens=4) == []


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (LlamaConfig, {"num_key_value_heads": 1}),
        (Qwen3Config, {"num_key_value_heads": 2, "head_dim": 16}),
        (MistralConfig, {"num_key_value_heads": 4, "sliding_window": 4096}),
    ],
)
def test_other_architectures_grow_in_trees_as_well(kind: Any, more: dict[str, Any]) -> None:
    model = random_model(kind, **more)
    decoder = Decoder(model, [END], END)
    assert decoder.uses_trees
    answers = decoder.decode(CONVERSATIONS, max_new_tokens=8, low_precision=False)
    assert answers == [alone(model, prompt, 8) for prompt in CONVERSATIONS]
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_takes_no_trees_writes_the_same_in_batches() -> None:
    """Bloom biases attention by position in the sequence (ALiBi), which a flattened tree does not have."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    decoder = Decoder(model, [END], END)
    assert not decoder.uses_trees
    answers = decoder.decode(CONVERSATIONS, max_new_tokens=8, low_precision=False)
    assert answers == [alone(model, prompt, 8) for prompt in CONVERSATIONS]


def test_beyond_a_sliding_window_answers_are_those_of_transformers() -> None:
    model = random_model(MistralConfig, num_key_value_heads=2, sliding_window=10)
    answers = Decoder(model, [END], END).decode(CONVERSATIONS, max_new_tokens=8, low_precision=False)
    assert answers == [alone(model, prompt, 8) for prompt in CONVERSATIONS]


def test_with_and_without_trees_everything_is_the_same(llama: Any, decoder: Decoder) -> None:
    """Constraints, sampling, limits of each prompt."""
    plain = Decoder(llama, [END], END)
    plain.uses_trees = False
    limits = [2, 9, 4, 1, 0, 8, 5, 7]
    found = [
        some.decode(
            CONVERSATIONS, max_new_tokens=limits, low_precision=False,
            constraints=[Only(row % 2, row % 4) for row in range(8)],
            sampling=Sampling(1.3, seeds=range(8), top_p=0.95),
        )
        for some in (decoder, plain)
    ]  # fmt: skip
    assert found[0] == found[1]
    assert all(len(answer) <= limit for answer, limit in zip(found[0], limits, strict=True))


@pytest.mark.parametrize(("bytes_of_store", "rows", "fed"), [(1, 1, 3), (1, 64, 2048), (1 << 30, 3, 5)])
def test_many_trees_and_small_passes_are_one_tree(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, bytes_of_store: int, rows: int, fed: int
) -> None:
    whole = decoder.decode(CONVERSATIONS, max_new_tokens=8, low_precision=False)
    monkeypatch.setattr(decoding, "STORE_BYTES", bytes_of_store)
    monkeypatch.setattr(decoding, "MAX_ANSWERS", rows)
    monkeypatch.setattr(decoding, "PASS_TOKENS", fed)
    batches: list[list[int]] = []
    cut = decoder.decode(
        CONVERSATIONS, max_new_tokens=8, low_precision=False, on_done=lambda batch, _: batches.append(batch)
    )
    assert cut == whole
    assert sorted(index for batch in batches for index in batch) == list(range(len(CONVERSATIONS)))
    assert max(map(len, batches)) <= rows


# Where it ends


def test_an_end_of_turn_at_once_is_an_empty_answer(llama: Any) -> None:
    silent = pickle.loads(pickle.dumps(llama))  # noqa: S301 - a copy of our own
    with torch.no_grad():
        silent.get_output_embeddings().weight.zero_()
        silent.get_output_embeddings().weight[END] = 1.0
        silent.model.norm.weight.zero_()
    with torch.no_grad():
        silent.get_output_embeddings().bias = torch.nn.Parameter(torch.eye(VOCABULARY)[END])
    assert Decoder(silent, [END], END).decode(CONVERSATIONS, max_new_tokens=6) == [[]] * len(CONVERSATIONS)


def test_every_end_of_turn_token_ends_an_answer(llama: Any, decoder: Decoder) -> None:
    written = decoder.decode(CONVERSATIONS, max_new_tokens=10, low_precision=False)
    other = next(answer[3] for answer in written if len(answer) > 3)
    answers = Decoder(llama, [END, other], END).decode(CONVERSATIONS, max_new_tokens=10, low_precision=False)
    assert answers == [answer[: answer.index(other)] if other in answer else answer for answer in written]


def test_a_prompt_that_fills_the_window_is_refused_and_one_beside_it_is_cut(decoder: Decoder) -> None:
    full = [2 + index % 20 for index in range(64)]
    with pytest.raises(ScoringError, match=r"prompt 1 has 64 tokens.*window is 64"):
        decoder.decode([STEM, full], max_new_tokens=4)
    assert len(decoder.decode([full[:-2]], max_new_tokens=9)[0]) <= 2
    with pytest.raises(ScoringError, match="prompt 0 has no tokens"):
        decoder.decode([[]], max_new_tokens=4)


def test_a_broken_model_is_said(llama: Any) -> None:
    broken = pickle.loads(pickle.dumps(llama))  # noqa: S301 - a copy of our own
    decoder = Decoder(broken, [END], END)
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ScoringError, match="NaN"):
        decoder.decode([STEM], max_new_tokens=4)


# Constraints


def test_constraints_are_obeyed_and_see_every_token_but_the_end(decoder: Decoder) -> None:
    constraints = [Only(row % 2, row % 4) for row in range(8)]
    answers = decoder.decode(CONVERSATIONS, max_new_tokens=6, low_precision=False, constraints=constraints)
    for row, (answer, constraint) in enumerate(zip(answers, constraints, strict=True)):
        assert constraint.accepted == answer
        assert all(token % 2 == row % 2 for token in answer)
        assert len(answer) >= row % 4


def test_a_constraint_without_a_way_on_is_an_error(decoder: Decoder) -> None:
    class Nothing(Only):
        def mask(self) -> np.ndarray:
            return np.zeros(VOCABULARY, np.bool_)

    with pytest.raises(ScoringError, match="forbids every token"):
        decoder.decode([STEM], max_new_tokens=2, constraints=[Nothing(0, 0)])


# Sampling


def test_what_is_drawn_depends_on_the_seed_and_on_nothing_beside_it(decoder: Decoder) -> None:
    def draw(order: Sequence[int]) -> dict[int, list[int]]:
        found = decoder.decode(
            [CONVERSATIONS[i] for i in order], max_new_tokens=8, low_precision=False,
            sampling=Sampling(1.5, seeds=[100 + i for i in order]),
        )  # fmt: skip
        return dict(zip(order, found, strict=True))

    together = draw(range(8))
    assert draw([5, 1, 7, 0, 3, 2, 6, 4]) == together
    for index in range(8):
        assert draw([index])[index] == together[index]
    assert together[6] != together[7]  # equal prompts, other seeds


def test_tokens_are_drawn_as_often_as_they_are_likely(llama: Any, decoder: Decoder) -> None:
    """2,000 first tokens; the largest deviation stays within five standard errors."""
    n, temperature = 2000, 3.0
    answers = decoder.decode(
        [STEM] * n, max_new_tokens=1, low_precision=False, sampling=Sampling(temperature, seeds=range(n))
    )
    with torch.no_grad():
        expected = (llama(torch.tensor([STEM])).logits[0, -1].double() / temperature).softmax(-1)
    counts = torch.zeros(VOCABULARY, dtype=torch.double)
    for answer in answers:
        counts[answer[0] if answer else END] += 1
    errors = (expected * (1 - expected) / n).sqrt()
    assert bool(((counts / n - expected).abs() <= 5 * errors + 1e-3).all())
    nucleus = decoder.decode(
        [STEM] * 200, max_new_tokens=1, low_precision=False, sampling=Sampling(temperature, range(200), top_p=0.5)
    )
    ordered, tokens = expected.sort(descending=True)
    likeliest = tokens[: int((ordered.cumsum(0) < 0.5).sum()) + 1].tolist()
    assert {answer[0] if answer else END for answer in nucleus} <= set(likeliest)


# Going on


def test_known_answers_are_not_computed_again_and_do_not_change_the_others(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_ANSWERS", 2)
    done: dict[int, list[int]] = {}
    whole = decoder.decode(
        CONVERSATIONS, max_new_tokens=8, on_done=lambda batch, ids: done.update(zip(batch, ids, strict=True))
    )
    assert [done[index] for index in range(8)] == whole
    some = dict(list(done.items())[:4])
    again: list[int] = []
    asked = []
    answers = decoder.decode(
        CONVERSATIONS, max_new_tokens=8, known=some, on_done=lambda batch, _: again.extend(batch),
        before_batch=lambda: asked.append(1),
    )  # fmt: skip
    assert answers == whole
    assert sorted(again) == sorted(set(range(8)) - set(some))
    assert len(asked) == len(again) // 2


def test_a_run_that_goes_on_feeds_the_same_passes(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass of another shape rounds otherwise, and a near-tie may fall the other way."""
    monkeypatch.setattr(decoding, "MAX_ANSWERS", 3)
    monkeypatch.setattr(decoding, "PASS_TOKENS", 5)
    fed: list[Any] = []
    forward = Decoder.forward

    def watched(self: Decoder, tokens: Sequence[int], *rest: Any) -> torch.Tensor:
        fed.append(list(tokens))
        return forward(self, tokens, *rest)

    monkeypatch.setattr(Decoder, "forward", watched)
    done: list[dict[int, list[int]]] = []

    def decode(known: dict[int, list[int]]) -> list[list[int]]:
        fed.clear()
        return decoder.decode(
            CONVERSATIONS, max_new_tokens=4, low_precision=False, known=known, before_batch=lambda: fed.append("batch"),
            on_done=lambda indices, answers: done.append(dict(zip(indices, answers, strict=True))),
        )  # fmt: skip

    whole, passes = decode({}), list(fed)
    assert passes.count("batch") > 1
    second = passes.index("batch", 1)
    assert decode(done[0]) == whole
    shared = -(-len(STEM) // 5)
    assert fed[1 + shared :] == passes[second + 1 :]
