"""What the agent is given: the policy, each tool in few words, and the four lists of tools that are on offer.

The lists differ at their ends only, so that everything before is encoded once for all conversations.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
# True to tau-bench's own; in code, not beside it, so that a change to it makes new rows.
POLICY = """\
You are an online shop's agent.
- First find the user by email, or by name and zip, even if a user id is given. Help only with this user's own orders and profile.
- One call at a time, without text. Make nothing up. No opinions.
- Ask for what is missing. Look the order id up if the user does not know it.
- Check the order first. Before any change, say what you will do and get a yes.
- Pending orders: cancel (no longer needed or ordered by mistake only), modify address, payment or items.
- Delivered orders: return (refund to the original payment or a gift card; ask which) or exchange.
- Items change once per order, to available options of the same product; ask how to pay the difference.
- Deny what is against this. Transfer if the user wants a human or no tool can do it; then \
say: YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON."""
CANCEL_REASONS = ("no longer needed", "ordered by mistake")
# What a transfer is about; a free text could not be judged right or wrong.
TRANSFERS = ("wants a human", "account change", "parcel problem", "no tool for this")


def _tool(name: str, description: str, **properties: str | Json) -> Json:
    typed = {key: {"type": "string"} if value == "" else value for key, value in properties.items()}
    parameters = {"type": "object", "properties": typed, "required": list(typed)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_IDS: Json = {"type": "array", "items": {"type": "string"}}
_ADDRESS: Json = dict.fromkeys(("address1", "address2", "city", "state", "country", "zip"), "")

_BASE = (
    _tool("find_user_id_by_name_zip", "", first_name="", last_name="", zip=""),
    _tool("get_order_details", "Status, items, payment", order_id=""),
    _tool("get_user_details", "Address, payment methods, orders", user_id=""),
    _tool("get_product_details", "Available items", product_id=""),
    _tool("calculate", "2 + 3", expression=""),
    _tool(
        "modify_pending_order_items",
        "Once per order",
        order_id="",
        item_ids=_IDS,
        new_item_ids=_IDS,
        payment_method_id="",
    ),
    _tool("modify_pending_order_address", "", order_id="", **_ADDRESS),
    _tool("modify_pending_order_payment", "", order_id="", payment_method_id=""),
    _tool("modify_user_address", "Default address", user_id="", **_ADDRESS),
    _tool(
        "return_delivered_order_items",
        "",
        order_id="",
        item_ids=_IDS,
        payment_method_id="",
    ),
    _tool(
        "exchange_delivered_order_items",
        "Once per order",
        order_id="",
        item_ids=_IDS,
        new_item_ids=_IDS,
        payment_method_id="",
    ),
    _tool("transfer_to_human_agents", "", summary={"type": "string", "enum": list(TRANSFERS)}),
)
_CANCEL = _tool("cancel_pending_order", "", order_id="", reason={"type": "string", "enum": [*CANCEL_REASONS]})
_EMAIL = _tool("find_user_id_by_email", "", email="")
_PRODUCTS = _tool("list_all_product_types", "Names and ids")  # 850 tokens a result: there to be called, in no list
_NEAR = (
    _tool("cancel_requested_return", "", order_id=""),
    _tool("get_order_tracking", "Tracking number", order_id=""),
)

FULL = (*_BASE, _CANCEL, _EMAIL)
WITHOUT_EMAIL = (*_BASE, _CANCEL)
WITHOUT_CANCEL = (*_BASE, _EMAIL)
WITH_NEAR = (*FULL, *_NEAR)
SCHEMAS: dict[str, Json] = {tool["function"]["name"]: tool for tool in (*WITH_NEAR, _PRODUCTS)}
