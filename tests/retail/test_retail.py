"""Retail conversations, from a made-up shop in the format of tau-bench's database."""

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rightcall.errors import DataError
from rightcall.retail import agent_phrases, customer_phrases, derive, offer, situations, tools, world
from rightcall.rows import tool_schemas
from rightcall.rows.vocabulary import BEHAVIOURS
from rightcall.toolcalls.words import guess_behaviour

Json = dict[str, Any]
STATUSES = ("pending", "delivered", "delivered", "pending", "processed", "cancelled")
WRITES = {name for name in tools._TOOLS if name.startswith(("cancel", "modify", "return", "exchange"))}
FINDS = {"find_user_id_by_email", "find_user_id_by_name_zip"}
ID = re.compile(r"#W\d{7}|(?:credit_card|paypal|gift_card)_\d{7}|\d{10}|[a-z]+_[a-z]+_\d{4}|\S+@\S+\.com")


def made_up_shop() -> Json:
    """60 users with up to three orders each; every third variant is sold out, every other gift card is nearly empty."""
    products = {}
    for p, name in enumerate(("Lamp", "Kettle", "Backpack", "Chair")):
        variants = {}
        for v, (color, size) in enumerate((c, s) for c in ("red", "blue", "green") for s in ("small", "large")):
            key = str(1_000_000_000 + 100 * p + v)
            variants[key] = {
                "item_id": key,
                "options": {"color": color, "size": size},
                "available": v % 3 != 2,
                "price": 20.5 + 10 * p + v,
            }
        key = str(9_000_000_000 + p)
        products[key] = {"name": name, "product_id": key, "variants": variants}
    users, orders = {}, {}
    for u in range(60):
        first, last = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn")[u % 6], ("Moss", "Reed", "Stone", "Vale")[u % 4]
        user_id = f"{first}_{last}_{1000 + u}".lower()
        methods = {
            f"credit_card_{2_000_000 + u}": {"source": "credit_card", "brand": "visa", "last_four": "1234"},
            f"gift_card_{3_000_000 + u}": {"source": "gift_card", "balance": 500.0 if u % 2 else 1.0},
            f"paypal_{4_000_000 + u}": {"source": "paypal"},
        }
        methods = {key: {"id": key, **method} for key, method in methods.items()}
        address = {"address1": f"{u} Elm Street", "address2": "Suite 1", "city": "Austin", "country": "USA"}
        address |= {"state": "TX", "zip": str(70_000 + u)}
        held = []
        for number in range(u % 4):
            order_id = f"#W{1_000_000 + 10 * u + number}"
            items = []
            for product in list(products.values())[: 1 + (u // 2 + number) % 3]:
                variant = product["variants"][min(product["variants"])]
                items.append(
                    {k: product[k] for k in ("name", "product_id")}
                    | {k: variant[k] for k in ("item_id", "price", "options")}
                )
            status = STATUSES[(u + number) % 6]
            sent = [] if status == "pending" else [{"tracking_id": [f"{u:06}{number:06}"], "item_ids": []}]
            paid = {
                "transaction_type": "payment",
                "amount": sum(i["price"] for i in items),
                "payment_method_id": min(methods),
            }
            orders[order_id] = {
                "order_id": order_id,
                "user_id": user_id,
                "address": {**address, "zip": "99999"},
                "items": items,
                "status": status,
                "fulfillments": sent,
                "payment_history": [paid],
            }
            held.append(order_id)
        users[user_id] = {
            "user_id": user_id,
            "name": {"first_name": first, "last_name": last},
            "address": address,
            "email": f"{first}.{last}{u}@example.com".lower(),
            "payment_methods": methods,
            "orders": held,
        }
    return {"products": products, "users": users, "orders": orders}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wheel")
    (path / world.DOMAIN).mkdir(parents=True)
    (path / world.DOMAIN / "db.json").write_text(json.dumps(made_up_shop()))
    return path


@pytest.fixture(scope="module")
def records(folder: Path) -> list[Json]:
    return list(derive.derive(folder, 7))


def calls_of(record: Json) -> Iterator[tuple[int, Json, str]]:
    """(place, function, result) of every call."""
    for place, message in enumerate(record["messages"]):
        for call in message.get("tool_calls", ()):
            result = record["messages"][place + 1]
            assert (result["role"], result["tool_call_id"]) == ("tool", call["id"])
            yield place, call["function"], result["content"]


def test_the_same_data_and_seed_give_the_same_records_and_another_seed_gives_others(
    folder: Path, records: list[Json]
) -> None:
    assert list(derive.derive(folder / world.DOMAIN, 7)) == records
    assert list(derive.derive(folder, 8)) != records


def test_chance_falls_as_it_did_when_this_was_written() -> None:
    """The numbers of another Python or machine would make other rows of the same seed."""
    dice = derive.Dice(42, "ada", 1)
    assert [dice.place(1000) for _ in range(4)] == [204, 334, 245, 721]
    assert dice.shuffled("abcde") == [*"edcba"]
    assert round(derive.share_of("ada", 42), 6) == 0.301602


def test_most_situations_and_all_behaviours_occur_and_no_user_meets_one_twice(records: list[Json]) -> None:
    names = Counter(record["situation"] for record in records)
    assert len(names) > 0.8 * len(situations.SITUATIONS)
    assert {name.split("/")[0] for name in names} == {s.name.split("/")[0] for s in situations.SITUATIONS}
    assert len({(record["user_id"], record["situation"]) for record in records}) == len(records)
    assert len({record["id"] for record in records}) == len(records)
    done = Counter(m["behaviour"] for r in records for m in r["messages"] if m["role"] == "assistant")
    assert set(done) == set(BEHAVIOURS)


def test_a_conversation_opens_with_policy_and_customer_and_ends_with_the_agent(records: list[Json]) -> None:
    for record in records:
        roles = [message["role"] for message in record["messages"]]
        assert roles[:2] == ["system", "user"]
        assert roles[-1] == "assistant"
        assert record["messages"][0]["content"] == offer.POLICY
        for one, other in itertools.pairwise(roles[1:]):
            assert (one, other) in {
                ("user", "assistant"),
                ("assistant", "user"),
                ("assistant", "tool"),
                ("tool", "assistant"),
            }


def test_every_call_fits_the_schema_of_an_offered_tool(records: list[Json]) -> None:
    for record in records:
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in record["tools"]}
        for _, function, _ in calls_of(record):
            Draft202012Validator(offered[function["name"]]).validate(function["arguments"])


def test_every_value_of_a_call_was_said_or_read_before(records: list[Json]) -> None:
    fixed = {*offer.TRANSFERS, *offer.CANCEL_REASONS}
    for record in records:
        for place, function, _ in calls_of(record):
            before = " ".join(m["content"] for m in record["messages"][1:place])
            for value in function["arguments"].values():
                for part in value if isinstance(value, list) else [value]:
                    seen = part.removeprefix("#") in before or part in fixed
                    assert seen or all(piece in before for piece in part.split(" + ")), (record["id"], part, before)


def test_a_write_comes_after_the_user_was_found_the_order_looked_at_and_a_yes(records: list[Json]) -> None:
    yes = re.compile(
        r"\b(yes|yep|yeah|ok|sure|correct|confirmed|please do|absolutely|of course|certainly|definitely|perfect)\b",
        re.I,
    )
    written = 0
    for record in records:
        found, looked = False, set()
        for place, function, result in calls_of(record):
            name, arguments = function["name"], function["arguments"]
            assert found or name in FINDS or name == "transfer_to_human_agents"
            found |= name in FINDS and not result.startswith(tools.ERROR)
            if name == "get_order_details" and not result.startswith(tools.ERROR):
                looked.add(arguments["order_id"])
            if name in WRITES:
                written += 1
                question, answer = record["messages"][place - 2 : place]
                assert question["behaviour"] == "request_for_info"
                assert answer["role"] == "user"
                assert yes.search(answer["content"]), answer["content"]
                assert "order_id" not in arguments or arguments["order_id"] in looked
                keys = ID.findall(json.dumps(arguments).replace(record["user_id"], ""))
                assert all(key in question["content"] for key in keys), question["content"]
    assert written > 20


def test_a_customer_who_says_no_changes_nothing(records: list[Json]) -> None:
    refused = [record for record in records if record["situation"] == "changed_mind/no"]
    assert refused
    for record in refused:
        assert not {function["name"] for _, function, _ in calls_of(record)} & WRITES


def test_calls_executed_again_give_the_same_results_and_leave_the_shop_as_it_was(
    folder: Path, records: list[Json]
) -> None:
    shop = world.load(folder)
    before = json.dumps([shop.users, shop.orders, shop.products])
    for record in records:
        own = world.World(shop)
        for _, function, result in calls_of(record):
            assert tools.call(own, function["name"], function["arguments"]) == result
    assert json.dumps([shop.users, shop.orders, shop.products]) == before


def test_no_record_names_another_user(folder: Path, records: list[Json]) -> None:
    shop = world.load(folder)
    owner = {order_id: order["user_id"] for order_id, order in shop.orders.items()}
    for user_id, user in shop.users.items():
        owner |= dict.fromkeys((user_id, user["email"], *user["payment_methods"]), user_id)
    for record in records:
        named = ID.findall(" ".join(message["content"] for message in record["messages"]))
        assert {owner.get(key, record["user_id"]) for key in named} <= {record["user_id"]}


def test_gold_texts_are_read_back_as_what_they_do(records: list[Json]) -> None:
    for record in records:
        for message in record["messages"]:
            if message["role"] == "assistant" and message["content"] != "":
                assert guess_behaviour(message["content"]) == message["behaviour"], message["content"]


def test_every_phrase_is_read_back_also_those_that_no_record_used() -> None:
    slots: defaultdict[str, str] = defaultdict(lambda: "#W1000000")
    slots |= {"status": "delivered", "item": "Lamp", "first": "Ada", "price": "20.5", "names": "Lamp and Kettle"}
    kinds = {
        "request_for_info": agent_phrases.ASKS,
        "cannot_answer": agent_phrases.DECLINES,
        "direct": agent_phrases.TELLS,
    }
    for behaviour, phrases in kinds.items():
        wrong = [
            text for texts in phrases.values() for text in texts if guess_behaviour(text.format_map(slots)) != behaviour
        ]
        assert not wrong


def test_reserved_customers_share_no_frame_with_the_others_and_are_the_first_that_ingest_holds_out(
    records: list[Json],
) -> None:
    reserved = {record["user_id"] for record in records if record["wording"] == "reserved"}
    assert reserved == {key for key in made_up_shop()["users"] if derive.share_of(key, 7) < derive.RESERVED_SHARE}
    assert reserved
    assert all(
        (r["user_id"] in reserved) == (r["wording"] == "reserved") == r["id"].endswith(".reserved") for r in records
    )
    for frames in (customer_phrases.PARTS, customer_phrases.REQUESTS, customer_phrases.ANSWERS):
        for common, reserved in frames.values():
            assert common
            assert reserved
            assert not set(common) & set(reserved)


def test_the_lists_of_tools_share_their_beginning_and_are_canonical_already() -> None:
    lists = (offer.FULL, offer.WITHOUT_EMAIL, offer.WITHOUT_CANCEL, offer.WITH_NEAR)
    shared = min(map(len, lists)) - 1
    assert len({json.dumps(tools_[:shared]) for tools_ in lists}) == 1
    for tools_ in lists:
        assert tool_schemas.normalise_tools(list(tools_)) == list(tools_)


def test_an_offered_tool_is_never_used_where_it_was_taken_away(records: list[Json]) -> None:
    gone = {"tool_gone/email": "find_user_id_by_email", "tool_gone/cancel": "cancel_pending_order"}
    for record in records:
        if (name := gone.get(record["situation"])) is not None:
            assert name not in {tool["function"]["name"] for tool in record["tools"]}


@pytest.fixture
def shop_world(folder: Path) -> world.World:
    return world.World(world.load(folder))


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("get_order_details", {"order_id": "#W0"}, "Order not found"),
        ("get_order_details", {}, "Missing argument order_id"),
        ("get_order_details", {"order_id": 7}, "Argument order_id should be a string"),
        ("get_order_details", {"order_id": "#W0", "x": "y"}, "Unknown argument x"),
        ("open_door", {}, "Unknown tool open_door"),
        ("calculate", {"expression": "2 ** 9"}, "Invalid expression"),
        ("calculate", {"expression": "1 / 0"}, "Invalid expression"),
        ("calculate", {"expression": "(" * 150}, "Invalid expression"),
        ("calculate", {"expression": "__import__('os')"}, "Invalid characters in expression"),
        ("cancel_pending_order", {"order_id": "#W1000010", "reason": "no longer needed"}, "Non-pending order cannot be cancelled"),
        ("return_delivered_order_items", {"order_id": "#W1000010", "item_ids": "x", "payment_method_id": "y"},
         "Argument item_ids should be a list of strings"),
        ("return_delivered_order_items", {"order_id": "#W1000010", "item_ids": ["1"], "payment_method_id": "paypal_1"},
         "Payment method not found"),
        ("return_delivered_order_items", {"order_id": "#W1000010", "item_ids": ["1"], "payment_method_id": "paypal_4000001"},
         "Payment method should be the original payment method"),
        ("find_user_id_by_email", {"email": "nobody@example.com"}, "User not found"),
    ],
)  # fmt: skip
def test_what_a_tool_cannot_do_is_a_text(shop_world: world.World, name: str, arguments: Json, problem: str) -> None:
    assert tools.call(shop_world, name, arguments) == f"Error: {problem}"


@pytest.mark.parametrize(("expression", "value"), [("54.04 + 3", "57.04"), ("(1 + 2) * -3 / 4", "-2.25"), ("7", "7.0")])
def test_an_expression_is_computed_to_cents(shop_world: world.World, expression: str, value: str) -> None:
    assert tools.call(shop_world, "calculate", {"expression": expression}) == value


def test_all_product_types_are_named_with_their_ids(shop_world: world.World) -> None:
    listed = json.loads(tools.call(shop_world, "list_all_product_types", {}))
    assert list(listed) == ["Backpack", "Chair", "Kettle", "Lamp"]
    assert listed["Lamp"] == "9000000000"


def test_a_private_copy_is_changed_and_nothing_else(folder: Path) -> None:
    shop = world.load(folder)
    one, other = world.World(shop), world.World(shop)
    order_id = next(key for key, order in shop.orders.items() if order["status"] == "pending")
    done = tools.call(one, "cancel_pending_order", {"order_id": order_id, "reason": "ordered by mistake"})
    assert json.loads(done) == {"order_id": order_id, "status": "cancelled"}
    assert one.order(order_id)["status"] == "cancelled"
    assert other.order(order_id)["status"] == "pending"
    assert tools.call(one, "cancel_pending_order", {"order_id": order_id, "reason": "ordered by mistake"}).startswith(
        "Error"
    )


def test_two_items_changed_together_take_each_its_own_price(shop_world: world.World) -> None:
    """tau-bench's own tool gives both the last one's."""
    order_id, order = next(
        (k, o) for k, o in made_up_shop()["orders"].items() if o["status"] == "pending" and len(o["items"]) > 1
    )
    old = [item["item_id"] for item in order["items"][:2]]
    new = [str(int(key) + 1) for key in old]
    card = f"credit_card_{order['payment_history'][0]['payment_method_id'].split('_')[-1]}"
    arguments = {"order_id": order_id, "item_ids": old, "new_item_ids": new, "payment_method_id": card}
    result = json.loads(tools.call(shop_world, "modify_pending_order_items", arguments))
    assert result == {"order_id": order_id, "status": "pending (item modified)", "price_difference": 2.0}
    changed = shop_world.order(order_id)["items"][:2]
    assert [item["price"] for item in changed] == [item["price"] + 1 for item in order["items"][:2]]


def test_a_gift_card_that_is_charged_and_refunded_has_the_right_balance(shop_world: world.World) -> None:
    order_id, order = next(
        (k, o) for k, o in made_up_shop()["orders"].items() if o["status"] == "pending" and int(o["user_id"][-4:]) % 2
    )
    card = f"gift_card_{3_000_000 + int(order['user_id'][-4:]) - 1000}"
    amount = order["payment_history"][0]["amount"]
    arguments = {"order_id": order_id, "payment_method_id": card}
    assert json.loads(tools.call(shop_world, "modify_pending_order_payment", arguments))["paid_with"] == card
    assert shop_world.user(order["user_id"])["payment_methods"][card]["balance"] == 500 - amount


def test_a_folder_without_the_database_is_named_and_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^missing_source: .*'db.json' lies in .*; give the folder"):
        list(derive.derive(tmp_path, 1))
    (tmp_path / "db.json").write_text("[]")
    with pytest.raises(DataError, match=r"^bad_source: "):
        list(derive.derive(tmp_path, 1))
