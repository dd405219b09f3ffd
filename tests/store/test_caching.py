"""What a rerun costs: nothing where neither values, inputs nor code changed, one stage where one of them did."""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib.util
import os
import re
import shutil
import threading
import time
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.context import FlowRunContext
from prefect_fixture import prefect_server  # noqa: F401
from stage_examples import make_first, make_second, ran, small_recipe

from rightcall.errors import RightcallError
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from tasks.runtime.keys import NOT_RESULTS, READS_TEMPLATES, module_closure, module_digest, stage_key
from tasks.stages.gate import decide_verdict
from tasks.stages.ingest import ingest_snapshot
from tasks.stages.score import score_model
from tasks.stages.training import prepare_base, probed_rows, train_dpo, train_sft
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.store.opening import open_store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Modules that import each other in every way."""
    package = tmp_path / "training_image" / "rightcall"
    (package / "chat" / "templates").mkdir(parents=True)
    (package / "recipe").mkdir()
    (tmp_path / "data_checks").mkdir()
    modules = {
        "__init__": '"""Package."""',
        "sft": '"""SFT."""\nimport torch\nfrom rightcall.chat import model_folder\ndef run():\n    from rightcall.late import value',
        "dpo": "from .pairs import PAIRS\nfrom rightcall.recipe.schema import Recipe",
        "pairs": "PAIRS = 1",
        "late": "value = 1  # one",
        "chat/__init__": "",
        "chat/model_folder": "TEMPLATE = 'tools'",
        "recipe/__init__": "",
        "recipe/schema": "Recipe = 1",
    }
    for name, text in modules.items():
        (package / f"{name}.py").write_text(text + "\n")
    (package / "chat" / "templates" / "tools.jinja").write_text("{{ tools }}")
    (tmp_path / "data_checks" / "flags.py").write_text("import rightcall.late\n")
    return tmp_path


def digests(checkout: Path) -> dict[str, str]:
    roots = ("rightcall.sft", "rightcall.dpo", "data_checks.flags")
    return {root.rpartition(".")[2]: module_digest((root,), checkout) for root in roots}


def changed_by(checkout: Path, path: str, text: str) -> set[str]:
    before = digests(checkout)
    (checkout / path).write_text(text)
    after = digests(checkout)
    return {name for name in before if before[name] != after[name]}


def test_imports_are_followed_however_late_or_relative_they_are(checkout: Path) -> None:
    assert module_closure(("rightcall.sft",), checkout) == {
        "rightcall.sft",
        "rightcall",
        "rightcall.chat",
        "rightcall.chat.model_folder",
        "rightcall.late",
    }
    assert module_closure(("rightcall.dpo",), checkout) == {"rightcall", "rightcall.dpo", "rightcall.pairs"}
    assert "rightcall.late" in module_closure(("data_checks.flags",), checkout)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("late", "# another comment\nvalue = 1\n"),
        ("late", '"""A docstring."""\n\nvalue = (1)\n'),
        ("pairs", "# a comment\n\n\nPAIRS   =   1\n"),
    ],
)
def test_a_comment_a_docstring_and_layout_change_nothing(checkout: Path, module: str, text: str) -> None:
    assert changed_by(checkout, f"training_image/rightcall/{module}.py", text) == set()


def test_a_line_of_code_changes_the_stages_that_import_it_and_no_other(checkout: Path) -> None:
    assert changed_by(checkout, "training_image/rightcall/sft.py", "def run():\n    return 2\n") == {"sft"}
    assert changed_by(checkout, "training_image/rightcall/pairs.py", "PAIRS = 2\n") == {"dpo"}
    assert changed_by(checkout, "training_image/rightcall/late.py", "value = 2\n") == {"flags"}


def test_a_docstring_like_value_of_code_still_counts(checkout: Path) -> None:
    assert changed_by(checkout, "training_image/rightcall/late.py", 'value = "one"\n') == {"sft", "flags"}


def test_templates_count_where_the_chat_module_is_used(checkout: Path) -> None:
    assert changed_by(checkout, "training_image/rightcall/chat/templates/tools.jinja", "{{ messages }}") == {"sft"}


def test_an_empty_folder_of_templates_is_an_error(checkout: Path) -> None:
    (checkout / "training_image/rightcall/chat/templates/tools.jinja").unlink()
    with pytest.raises(RightcallError, match="no chat template in"):
        module_digest(("rightcall.sft",), checkout)
    assert module_digest(("rightcall.dpo",), checkout)


def test_templates_of_the_real_tree_are_in_the_key_of_what_renders_them(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "training_image", tmp_path / "training_image")
    before = module_digest(train_sft.modules, tmp_path)
    template = next((tmp_path / "training_image/rightcall/chat/templates").glob("*.jinja"))
    template.write_text(template.read_text() + " ")
    assert module_digest(train_sft.modules, tmp_path) != before


def test_the_recipe_package_does_not_count_because_its_values_do(checkout: Path) -> None:
    assert changed_by(checkout, "training_image/rightcall/recipe/schema.py", "Recipe = 2\n") == set()


def test_no_module_of_the_recipe_is_in_the_closure_of_a_real_stage() -> None:
    closure = module_closure(train_sft.modules) | module_closure(score_model.modules)
    assert {"rightcall.job.partial_results", "rightcall.job.metrics_log"} <= closure
    assert not [name for name in closure if name.startswith(("rightcall.recipe", "rightcall.errors"))]


def test_every_module_that_the_rules_of_keys_name_exists() -> None:
    assert [name for name in (*NOT_RESULTS, READS_TEMPLATES) if importlib.util.find_spec(name) is None] == []


def test_a_module_that_moves_keeps_its_digest(checkout: Path) -> None:
    """pairs.py becomes pairing/gather.py, late.py later.py; whoever imports them is rewritten."""
    library, before = checkout / "training_image/rightcall", digests(checkout)
    (library / "pairing").mkdir()
    (library / "pairing/__init__.py").write_text('"""Pairs."""\n')
    (library / "pairs.py").rename(library / "pairing/gather.py")
    (library / "late.py").rename(library / "later.py")
    (library / "dpo.py").write_text(
        "from rightcall.pairing.gather import PAIRS\nfrom rightcall.recipe.schema import Recipe\n"
    )
    sft = (library / "sft.py").read_text()
    (library / "sft.py").write_text(sft.replace("rightcall.late", "rightcall.later"))
    (checkout / "data_checks/flags.py").write_text("import rightcall.later\n")
    assert digests(checkout) == before


def test_an_import_of_the_same_name_from_another_module_counts(checkout: Path) -> None:
    """Both modules are in the closure before and after; the value that sft uses is another."""
    library = checkout / "training_image/rightcall"
    (library / "other.py").write_text("value = 2\n")
    both = "import rightcall.other\nimport rightcall.late\n"
    (library / "sft.py").write_text(f"{both}from rightcall.late import value\n")
    assert changed_by(checkout, "training_image/rightcall/sft.py", f"{both}from rightcall.other import value\n") == {
        "sft"
    }


def test_modules_in_a_circle_are_an_error(checkout: Path) -> None:
    (checkout / "training_image/rightcall/late.py").write_text("from rightcall.sft import run\n")
    with pytest.raises(RightcallError, match="in a circle: .'rightcall.sft', 'rightcall.late', 'rightcall.sft'"):
        module_digest(("rightcall.sft",), checkout)


def test_a_module_that_does_not_exist_or_parse_is_an_error(checkout: Path) -> None:
    with pytest.raises(RightcallError, match=r"'rightcall.nothing' of a stage is not below"):
        module_digest(("rightcall.nothing",), checkout)
    (checkout / "training_image/rightcall/late.py").write_text("value =\n")
    with pytest.raises(RightcallError, match=r"late.py' does not parse"):
        module_digest(("rightcall.sft",), checkout)


def test_an_edit_of_the_real_sft_module_reruns_sft_alone(tmp_path: Path) -> None:
    for name in ("training_image", "data_checks", "tasks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    stages = (prepare_base, ingest_snapshot, train_sft, train_dpo, score_model, decide_verdict)

    def current() -> dict[str, str]:
        return {stage.name: module_digest(stage.modules, tmp_path) for stage in stages}

    before, sft = current(), tmp_path / "training_image/rightcall/training/sft.py"
    sft.write_text("# a comment\n" + sft.read_text())
    assert current() == before
    sft.write_text(sft.read_text() + "\nEDITED = True\n")
    assert {name for name, digest in current().items() if digest != before[name]} == {"sft"}


@pytest.mark.parametrize("modules", [train_sft.modules, train_dpo.modules])
def test_what_the_verifier_learns_to_read_trains_nothing_again(modules: tuple[str, ...]) -> None:
    """Training loads its template through a check that parses calls: a refusal, which changes no weight."""
    closure = module_closure(modules)
    assert "rightcall.chat" in closure
    assert not [module for module in closure if "toolcalls" in module]


def test_a_recipe_that_probes_has_the_code_of_the_probe_in_its_key() -> None:
    plain, probed = load_recipe(), load_recipe(None, ["sft.probe_steps=5"])
    assert "probe" not in train_sft.slice(plain)
    assert train_sft.slice(probed)["probe"] == module_digest(("rightcall.training.probe",))


def test_digests_agree_when_other_threads_parse_too(checkout: Path) -> None:
    """CPython 3.11.7 raises SystemError when a collection hands over to a thread that parses too (gh-106905)."""
    expected = digests(checkout)
    source = "\n".join(f"def f{number}(a): return [a + {number} for a in (1, 2, (3, (4, 5)))]" for number in range(100))
    (checkout / "training_image/rightcall/late.py").write_text(f"{source}\n")
    changed = digests(checkout)
    assert changed != expected
    done, thresholds = threading.Event(), gc.get_threshold()

    def parse() -> None:
        while not done.is_set():
            with contextlib.suppress(SystemError):
                ast.parse(source)

    def hand_over(*_: object) -> None:
        time.sleep(0)

    other = threading.Thread(target=parse)
    other.start()
    gc.callbacks.append(hand_over)
    gc.set_threshold(50)
    try:
        for turn in range(15):
            os.utime(checkout / "training_image/rightcall/late.py", ns=(turn, turn))  # parsed anew
            assert digests(checkout) == changed
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(hand_over)
        done.set()
        other.join()


def test_a_key_is_made_of_stage_version_values_inputs_and_code() -> None:
    ingredients = {"version": 1, "slice": {"rate": 0.1}, "input_digests": {"base": "aa"}, "modules": "bb"}
    changes = [{"version": 2}, {"slice": {"rate": 0.2}}, {"input_digests": {"base": "ab"}}, {"modules": "cc"}, {}]
    keys = {stage_key("sft", ingredients | change) for change in changes} | {stage_key("dpo", ingredients)}
    assert len(keys) == len(changes) + 1
    assert all(re.fullmatch("[0-9a-f]{32}", key) for key in keys)


def put(store: Store, key: str, **files: str) -> ArtifactRef:
    work = store.workdir("ingest", key, empty=True)
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    return store.commit("ingest", key, "snapshot", work, {"result": {}})


def test_training_depends_on_its_part_of_the_snapshot_and_on_no_address(tmp_path: Path) -> None:
    store = Store(tmp_path)
    model = put(store, "m", **{"model/weights": "w", "output/summary.json": "1 s"})
    same_model = put(store, "n", **{"model/weights": "w", "output/items.jsonl": "x"})
    one = put(store, "a", **{"sft.parquet": "1", "preference.parquet": "1"})
    two = put(store, "b", **{"sft.parquet": "1", "preference.parquet": "2"})
    recipe = small_recipe()
    assert train_sft.key(recipe, {"base": model, "snapshot": one}, store=store) == train_sft.key(
        recipe, {"base": same_model, "snapshot": two}, store=store
    )
    assert train_dpo.key(recipe, {"model": model, "snapshot": one}, store=store) != train_dpo.key(
        recipe, {"model": model, "snapshot": two}, store=store
    )


def test_preference_training_that_probes_depends_on_the_rows_it_probes_with(tmp_path: Path) -> None:
    store = Store(tmp_path)
    model, pairs = put(store, "m", **{"model/weights": "w"}), put(store, "p", **{"preference.parquet": "1"})
    snapshots = [put(store, name, **{"sft.parquet": name, "choice.parquet": "1"}) for name in "ab"]
    plain, probes = small_recipe(), small_recipe(dpo={"probe_steps": 5})

    def keys(recipe: Recipe) -> set[str]:
        given = [{"model": model, "snapshot": pairs, **probed_rows(recipe, snapshot)} for snapshot in snapshots]
        return {train_dpo.key(recipe, refs, store=store) for refs in given}

    assert (len(keys(plain)), len(keys(probes))) == (1, 2)


def test_training_depends_on_its_section_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    model, rows = (
        put(store, "m", **{"model/weights": "w"}),
        put(store, "a", **{"sft.parquet": "1", "preference.parquet": "1"}),
    )

    def keys(recipe: Recipe) -> tuple[str, str]:
        sft = train_sft.key(recipe, {"base": model, "snapshot": rows}, store=store)
        return sft, train_dpo.key(recipe, {"model": model, "snapshot": rows}, store=store)

    sft, dpo = keys(small_recipe())
    assert keys(small_recipe(dpo={"beta": 0.2}))[0] == sft
    assert keys(small_recipe(dpo={"beta": 0.2}))[1] != dpo
    assert keys(small_recipe(sft={"seed": 1}))[0] != sft
    unrelated = small_recipe(
        compute={"threads": 1}, sft={"save_steps": 7}, evaluation={"max_new_tokens": 7}, name="other"
    )
    assert keys(unrelated) == (sft, dpo)


# With a real Prefect server.


@pytest.fixture
def store(tmp_path: Path, prefect_server: None) -> Store:  # noqa: F811
    ran.clear()
    return Store(tmp_path / "store")


@flow
def two_stages(address: str, recipe: Recipe) -> tuple[str, ArtifactRef]:
    """Id of the flow run and the last ref."""
    store = open_store(address)
    second = make_second(recipe, store=store, model=make_first(recipe, store=store))
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return str(context.flow_run.id), second


def run(store: Store, recipe: Recipe) -> tuple[list[str], list[str], ArtifactRef]:
    """Bodies that ran, the states that the UI shows, and the last ref."""
    ran.clear()
    run_id, ref = two_stages(store.address, recipe)
    with get_client(sync_client=True) as client:
        for _ in range(100):
            task_runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
            if len(task_runs) == 2 and all(task_run.state and task_run.state.is_final() for task_run in task_runs):
                break
            time.sleep(0.1)  # states travel as events
    states = {task_run.name: str(task_run.state_name) for task_run in task_runs}
    return list(ran), [states[name] for name in sorted(states)], ref


def test_a_second_run_is_cached_and_the_ui_says_so(store: Store) -> None:
    bodies, states, ref = run(store, small_recipe())
    assert (bodies, states) == (["first", "second"], ["Completed", "Completed"])
    assert run(store, small_recipe()) == ([], ["Cached", "Cached"], ref)
    assert isinstance(ref, ArtifactRef)


def test_a_changed_value_reruns_its_stage_and_what_follows(store: Store) -> None:
    run(store, small_recipe())
    assert run(store, small_recipe(dpo={"beta": 0.2}))[0] == ["second"]
    assert run(store, small_recipe(sft={"learning_rate": 2e-3}))[0] == ["first", "second"]
    assert run(store, small_recipe())[0] == []


def test_a_cached_ref_whose_files_are_gone_is_made_again(store: Store) -> None:
    _, _, ref = run(store, small_recipe())
    shutil.rmtree(store.path(ref))
    assert run(store, small_recipe()) == (["second"], ["Cached", "Completed"], ref)
    store.verify(ref)
    assert run(store, small_recipe())[1] == ["Cached", "Cached"]


def test_a_moved_store_is_cached(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, ref = run(store, small_recipe())
    store.root.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert run(Store(Path("moved")), small_recipe()) == ([], ["Cached", "Cached"], ref)


def test_results_that_prefect_forgot_are_found_in_the_store(store: Store) -> None:
    _, _, ref = run(store, small_recipe())
    shutil.rmtree(store.root / ".results")
    bodies, states, again = run(store, small_recipe())
    assert (bodies, states, again) == ([], ["Completed", "Completed"], ref)


def test_a_record_of_a_result_that_was_made_anew_does_not_count(store: Store) -> None:
    """A stage that is not deterministic, made again beside Prefect: its old record names a digest that is gone."""
    _, _, ref = run(store, small_recipe())
    record = store.root / ".results" / ref.uri.replace("/", "-")
    record.write_text(record.read_text().replace(ref.digest, "0" * 64))
    assert run(store, small_recipe())[2] == ref


def test_no_lease_is_left_after_a_run(store: Store) -> None:
    run(store, small_recipe())
    assert list((store.root / ".leases").glob("*.lease")) == []
