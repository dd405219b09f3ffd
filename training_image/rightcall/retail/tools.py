"""The tools of tau-bench retail, executed for real on a ``World``: names, arguments and rules as there, results compact.

    call(world, "get_order_details", {"order_id": "#W7678072"})   '{"order_id": "#W7678072", "status": "delivered", …}'
    call(world, "get_order_details", {"order_id": "#W0000000"})   'Error: Order not found'

Results hold only what an agent needs for its next step: options are their values in one string, a product lists what is
available, an order names the one way it was paid. Unlike tau-bench's own tool, an item that is modified together with
others takes its own new price.
"""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

from rightcall.retail.offer import SCHEMAS
from rightcall.retail.world import Json, ToolProblem, World

ERROR = "Error: "  # how the result of a call that failed begins
_OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
ADDRESS = ("address1", "address2", "city", "state", "country", "zip")
_LONGEST_EXPRESSION = 200  # characters; keeps the parser's recursion small


def call(world: World, name: str, arguments: Mapping[str, Any]) -> str:
    """The tool's result, or what went wrong, as the text that the model reads; never raises on what a model writes."""
    try:
        schema = SCHEMAS.get(name)
        if schema is None:
            raise ToolProblem(f"Unknown tool {name}")
        _check(arguments, schema["function"]["parameters"])
        result = _TOOLS[name](world, **arguments)
    except ToolProblem as err:
        return f"{ERROR}{err}"
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, separators=(",", ":"))


def _check(arguments: Mapping[str, Any], parameters: Json) -> None:
    properties = parameters["properties"]
    for name in parameters["required"]:
        if name not in arguments:
            raise ToolProblem(f"Missing argument {name}")
    for name, value in arguments.items():
        if name not in properties:
            raise ToolProblem(f"Unknown argument {name}")
        listed = properties[name]["type"] == "array"
        if not isinstance(value, list if listed else str) or (listed and not all(isinstance(v, str) for v in value)):
            raise ToolProblem(f"Argument {name} should be a {'list of strings' if listed else 'string'}")


def _find_by_email(world: World, email: str) -> str:
    for user_id in world.user_ids():
        if world.user(user_id)["email"].lower() == email.lower():
            return user_id
    raise ToolProblem("User not found")


def _find_by_name(world: World, first_name: str, last_name: str, zip: str) -> str:
    wanted = (first_name.lower(), last_name.lower(), zip)
    for user_id in world.user_ids():
        user = world.user(user_id)
        if (user["name"]["first_name"].lower(), user["name"]["last_name"].lower(), user["address"]["zip"]) == wanted:
            return user_id
    raise ToolProblem("User not found")


def one_line(address: Json) -> str:
    parts = (address[key] for key in ADDRESS)
    return ", ".join(part for part in parts if part)


def options_text(options: Json) -> str:
    return ", ".join(options.values())


def _user_details(world: World, user_id: str) -> Json:
    user = world.user(user_id)
    methods = {}
    for key, method in user["payment_methods"].items():
        card = f"{method['brand']} {method['last_four']}" if "brand" in method else ""
        methods[key] = f"balance {method['balance']}" if "balance" in method else card
    return {
        "name": f"{user['name']['first_name']} {user['name']['last_name']}",
        "email": user["email"],
        "address": one_line(user["address"]),
        "payment_methods": methods,
        "orders": user["orders"],
    }


def _order_details(world: World, order_id: str) -> Json:
    order = world.order(order_id)
    items = [
        {
            "name": item["name"],
            "item_id": item["item_id"],
            "product_id": item["product_id"],
            "price": item["price"],
            "options": options_text(item["options"]),
        }
        for item in order["items"]
    ]
    shown = {"user_id": order["user_id"], "status": order["status"], "items": items, "paid_with": paid_with(order)}
    if "pending" in order["status"]:
        shown["address"] = one_line(order["address"])
    tracking = [number for sent in order.get("fulfillments", ()) for number in sent["tracking_id"]]
    return {**shown, "tracking": ", ".join(tracking)} if tracking else shown


def paid_with(order: Json) -> str:
    """The payment method that the order stands on now."""
    return str([p for p in order["payment_history"] if p["transaction_type"] == "payment"][-1]["payment_method_id"])


def available(product: Json) -> dict[str, Json]:
    return {key: variant for key, variant in product["variants"].items() if variant["available"]}


def _product_details(world: World, product_id: str) -> Json:
    product = world.product(product_id)
    shown = {key: f"{options_text(v['options'])}, {v['price']}" for key, v in available(product).items()}
    return {"name": product["name"], "available": shown}


def _product_types(world: World) -> Json:
    return dict(sorted((product["name"], product["product_id"]) for product in world.products()))


def _calculate(world: World, expression: str) -> str:
    del world  # every tool takes it
    if len(expression) > _LONGEST_EXPRESSION or not set(expression) <= set("0123456789+-*/(). "):
        raise ToolProblem("Invalid characters in expression")
    try:
        return str(round(_value(ast.parse(expression.strip(), mode="eval").body), 2))
    except (SyntaxError, ArithmeticError, ValueError) as err:
        raise ToolProblem("Invalid expression") from err


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
    raise ToolProblem("Invalid expression")


def _transfer(world: World, summary: str) -> str:
    del world
    if not summary.strip():
        raise ToolProblem("Empty summary")
    return "Transfer successful"


def _order_with(world: World, order_id: str, status: str, problem: str) -> Json:
    if world.order(order_id)["status"] != status:
        raise ToolProblem(problem)
    return world.own_order(order_id)


def _method(world: World, user_id: str, payment_method_id: str) -> Json:
    method = world.user(user_id)["payment_methods"].get(payment_method_id)
    if method is None:
        raise ToolProblem("Payment method not found")
    return dict(method)


def _pay(world: World, order: Json, kind: str, amount: float, payment_method_id: str) -> None:
    """Book a payment or a refund; a gift card's balance moves at once."""
    entry = {"transaction_type": kind, "amount": amount, "payment_method_id": payment_method_id}
    order["payment_history"].append(entry)
    method = world.own_user(order["user_id"])["payment_methods"].get(payment_method_id, {})
    if "balance" in method:
        method["balance"] = round(method["balance"] + (amount if kind == "refund" else -amount), 2)


def _cancel(world: World, order_id: str, reason: str) -> Json:
    order = _order_with(world, order_id, "pending", "Non-pending order cannot be cancelled")
    if reason not in ("no longer needed", "ordered by mistake"):
        raise ToolProblem("Invalid reason")
    for payment in list(order["payment_history"]):
        _pay(world, order, "refund", payment["amount"], payment["payment_method_id"])
    order["status"] = "cancelled"
    return {"order_id": order_id, "status": "cancelled"}


def _replacements(world: World, order: Json, item_ids: list[str], new_item_ids: list[str]) -> list[tuple[Json, Json]]:
    """(item of the order, its new variant) of each position."""
    _hold(order, item_ids)
    if len(item_ids) != len(new_item_ids):
        raise ToolProblem("The number of items to be exchanged should match")
    pairs, left = [], list(order["items"])
    for old, new in zip(item_ids, new_item_ids, strict=True):
        item = next(item for item in left if item["item_id"] == old)
        left.remove(item)
        variant = world.product(item["product_id"])["variants"].get(new)
        if variant is None or not variant["available"]:
            raise ToolProblem(f"New item {new} not found or available")
        pairs.append((item, variant))
    return pairs


def _hold(order: Json, item_ids: list[str]) -> None:
    held = [item["item_id"] for item in order["items"]]
    for item_id in item_ids:
        if item_ids.count(item_id) > held.count(item_id):
            raise ToolProblem(f"Item {item_id} not found")
    if not item_ids:
        raise ToolProblem("No items given")


def _covers(world: World, order: Json, amount: float, payment_method_id: str) -> None:
    method = _method(world, order["user_id"], payment_method_id)
    if method.get("balance", amount) < amount:
        raise ToolProblem("Insufficient gift card balance")


def _exchange(
    world: World, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> Json:
    order = _order_with(world, order_id, "delivered", "Non-delivered order cannot be exchanged")
    pairs = _replacements(world, order, item_ids, new_item_ids)
    difference = round(sum(new["price"] - old["price"] for old, new in pairs), 2)
    _covers(world, order, difference, payment_method_id)
    order["status"] = "exchange requested"
    return {"order_id": order_id, "status": order["status"], "price_difference": difference}


def _modify_items(
    world: World, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
) -> Json:
    order = _order_with(world, order_id, "pending", "Non-pending order cannot be modified")
    pairs = _replacements(world, order, item_ids, new_item_ids)
    if any(old == new for old, new in zip(item_ids, new_item_ids, strict=True)):
        raise ToolProblem("The new item id should be different from the old item id")
    difference = round(sum(new["price"] - old["price"] for old, new in pairs), 2)
    _covers(world, order, difference, payment_method_id)
    _pay(world, order, "payment" if difference > 0 else "refund", abs(difference), payment_method_id)
    for old, new in pairs:
        old.update(item_id=new["item_id"], price=new["price"], options=new["options"])
    order["status"] = "pending (item modified)"
    return {"order_id": order_id, "status": order["status"], "price_difference": difference}


def _modify_address(world: World, order_id: str, **address: str) -> Json:
    if "pending" not in world.order(order_id)["status"]:
        raise ToolProblem("Non-pending order cannot be modified")
    world.own_order(order_id)["address"] = address
    return {"order_id": order_id, "address": one_line(address)}


def _modify_payment(world: World, order_id: str, payment_method_id: str) -> Json:
    order = world.order(order_id)
    if "pending" not in order["status"]:
        raise ToolProblem("Non-pending order cannot be modified")
    _method(world, order["user_id"], payment_method_id)
    if [p["transaction_type"] for p in order["payment_history"]] != ["payment"]:
        raise ToolProblem("There should be exactly one payment for a pending order")
    paid = order["payment_history"][0]
    if paid["payment_method_id"] == payment_method_id:
        raise ToolProblem("The new payment method should be different from the current one")
    _covers(world, order, paid["amount"], payment_method_id)
    order = world.own_order(order_id)
    _pay(world, order, "payment", paid["amount"], payment_method_id)
    _pay(world, order, "refund", paid["amount"], paid["payment_method_id"])
    return {"order_id": order_id, "paid_with": payment_method_id}


def _modify_user_address(world: World, user_id: str, **address: str) -> Json:
    world.own_user(user_id)["address"] = address
    return {"user_id": user_id, "address": one_line(address)}


def _return(world: World, order_id: str, item_ids: list[str], payment_method_id: str) -> Json:
    order = _order_with(world, order_id, "delivered", "Non-delivered order cannot be returned")
    method = _method(world, order["user_id"], payment_method_id)
    if method["source"] != "gift_card" and payment_method_id != order["payment_history"][0]["payment_method_id"]:
        raise ToolProblem("Payment method should be the original payment method")
    _hold(order, item_ids)
    order["status"] = "return requested"
    return {"order_id": order_id, "status": order["status"]}


def _cancel_return(world: World, order_id: str) -> Json:
    order = _order_with(world, order_id, "return requested", "No return was requested for this order")
    order["status"] = "delivered"
    return {"order_id": order_id, "status": "delivered"}


def _tracking(world: World, order_id: str) -> Json:
    numbers = [number for sent in world.order(order_id).get("fulfillments", ()) for number in sent["tracking_id"]]
    if not numbers:
        raise ToolProblem("Not shipped yet")
    return {"order_id": order_id, "tracking": ", ".join(numbers)}


_TOOLS: dict[str, Callable[..., Json | str]] = {
    "find_user_id_by_email": _find_by_email,
    "find_user_id_by_name_zip": _find_by_name,
    "get_user_details": _user_details,
    "get_order_details": _order_details,
    "get_product_details": _product_details,
    "list_all_product_types": _product_types,
    "calculate": _calculate,
    "cancel_pending_order": _cancel,
    "modify_pending_order_items": _modify_items,
    "modify_pending_order_address": _modify_address,
    "modify_pending_order_payment": _modify_payment,
    "modify_user_address": _modify_user_address,
    "return_delivered_order_items": _return,
    "exchange_delivered_order_items": _exchange,
    "transfer_to_human_agents": _transfer,
    "cancel_requested_return": _cancel_return,
    "get_order_tracking": _tracking,
}
