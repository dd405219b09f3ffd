"""What the agent says, by what it does, a phrase a line; ``rightcall.toolcalls.words`` must read each as its behaviour."""

from __future__ import annotations


def _read(text: str) -> dict[str, tuple[str, ...]]:
    phrases: dict[str, list[str]] = {}
    for line in text.strip().splitlines():
        if line.startswith("["):
            lines = phrases[line.strip("[]")] = []
        else:
            lines.append(line)
    return {act: tuple(lines) for act, lines in phrases.items()}


ASKS = _read("""
[identity]
Sure. First, what is your email, or your name and zip code?
Happy to help. Could you give me your email, or your full name and zip code?
To verify you, I need your email, or your name and zip code.
Of course. Please tell me your email address, or your name and zip code.
[identity_insist]
I understand, but I need to verify you first. What is your email, or your name and zip code?
That is not possible without verification. Please tell me your email, or your name and zip code.
[identity_after_id]
Thanks, but I also need your email, or your name and zip code. Which can you give me?
A user id is not enough. Please give me your email, or your name and zip code.
[identity_rest]
Thanks, {first}. What is your zip code, or your email?
Thank you. Could you also give me your zip code, or your email?
[identity_again]
I find no account with that. Please give me another email, or your name and zip code.
No user was found. Could you check it, or give me your name and zip code?
[name_zip]
I need your full name and zip code to find you. What are they?
Without the email: could you give me your first and last name and your zip code?
[need]
Hello! What can I do for you?
Hi! Which order or request is it about?
[order]
Which order is it? Please give me the order id.
What is the order id?
Could you tell me the order id?
[order_again]
I find no order {order}. Could you check the order id?
There is no order {order}. What is the right order id?
[reason]
Why do you want to cancel {order}: is it no longer needed, or was it ordered by mistake?
What is the reason: no longer needed, or ordered by mistake?
[items]
Which items of {order} do you want to return: {names}?
{order} has {names}. Which of them should I return?
[refund]
Where should the refund go: {paid_with}, or {card}?
Which do you want for the refund, the original {paid_with} or {card}?
[difference]
Which payment method should I use for the price difference?
How do you want to settle the price difference? Please tell me the payment method.
[wish]
Which options should the new {item} have?
What should the new {item} be like? Please tell me the options.
[address]
What is the new address?
Please tell me the full new address, with zip code.
[other_payment]
The gift card does not cover it. Which other payment method should I use?
The balance of that gift card is too low. Which other payment method do you want?
[confirm_cancel]
Cancel {order} ({reason}), refund to {method}. Do you confirm (yes/no)?
I will cancel {order} as {reason}, and {method} gets the refund. Is that correct?
[confirm_return]
Return from {order}: {items}, refund to {method}. Do you confirm (yes/no)?
I will return {items} of {order} with the refund to {method}. Is that correct?
[confirm_swap]
{order}: {item} {old} -> {new} ({options}), difference via {method}. Are these all the items? Do you confirm (yes/no)?
In {order} I will replace {item} {old} by {new} ({options}), using {method}. Is that all and correct?
[confirm_address]
Ship {order} to {address}. Do you confirm (yes/no)?
I will change the address of {order} to {address}. Is that correct?
[confirm_user_address]
Default address to {address}. Do you confirm (yes/no)?
I will set your default address to {address}. Is that correct?
[confirm_payment]
Pay {order} with {method}, refund of the old payment to {paid_with}. Do you confirm (yes/no)?
I will switch the payment of {order} from {paid_with} to {method}. Is that correct?
[confirm_cancel_return]
Withdraw the return of {order}. Do you confirm (yes/no)?
I will withdraw the return of {order}, so you keep the items. Is that correct?
""")

DECLINES = _read("""
[cancel_status]
Sorry, {order} is {status}, and only pending orders can be cancelled.
I can't do that: {order} is {status}, so it cannot be cancelled.
[return_status]
Sorry, {order} is {status}, and only delivered orders can be returned.
I can't do that: {order} is {status}, so nothing of it can be returned.
[modify_status]
Sorry, {order} is {status}, and only pending orders can be modified.
I cannot change {order}: it is {status}.
[swap_status]
Sorry, {order} is {status}, so its items cannot be changed or exchanged.
I cannot exchange that, since {order} is {status}.
[reason]
Sorry, I can't cancel for that reason, only if it is no longer needed or ordered by mistake.
That reason is not accepted. I cannot cancel {order} for it.
[once]
Sorry, the items of {order} can be changed only once, and that is done.
I can't do that: {order} was changed already, and that is possible only once.
[type]
Sorry, I can change {item} only to another {item}, not to {other}.
{item} to {other} is not possible, only to another {item}.
[refund]
Sorry, the refund can go only to {paid_with} or a gift card.
I cannot refund to {method}, only to {paid_with} or a gift card.
[sold_out]
Sorry, {item} ({options}) is not available.
I can't offer that: {item} ({options}) is sold out.
[other_user]
Sorry, I can only help with your own orders.
I can't do that for anyone else, only for your own account.
[price_match]
Sorry, we do not match prices.
I cannot change prices or match those of others.
[discount]
Sorry, I can't give discounts or vouchers.
Unfortunately there are no discounts I could apply.
[new_order]
Sorry, I can't place new orders.
Unfortunately I cannot order anything for you.
[opinion]
Sorry, I can't give opinions on products.
I am not able to recommend products.
[off_topic]
Sorry, I can't help with that, only with orders of this shop.
That is outside of what I can do here.
[insist]
I understand, but I can't make an exception.
Sorry, it is still not possible.
[unknown]
Sorry, I still find no account, so I cannot help without that.
I'm unable to find your account, and without it I can't go on.
""")

TELLS = _read("""
[cancelled]
Done, {order} is cancelled. The refund goes to {method}.
{order} is cancelled, with the refund to {method}.
[returned]
Done. The return of {order} is requested; watch for our email.
The return for {order} is on its way, details follow by email.
[exchanged]
Done. The exchange for {order} is requested; watch for our email.
The exchange for {order} is requested, details follow by email.
[modified]
Done, the items of {order} are changed.
{order} now has the new item.
[address]
Done, {order} goes to the new address.
The address of {order} is changed.
[user_address]
Done, your default address is changed.
Your profile has the new address now.
[payment]
Done, {order} is now paid with {method}.
The payment of {order} is switched to {method}.
[return_withdrawn]
Done, the return of {order} is withdrawn.
The return of {order} is withdrawn, you keep the items.
[unchanged]
All right, nothing is changed.
Okay, I left everything as it is.
[bye]
You're welcome. Have a great day!
Glad to help. Goodbye!
[alright]
Thank you for understanding. Have a great day!
All right. Have a good day!
[transferred]
YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.
[bot]
I am the shop's virtual agent.
Yes, I am a virtual agent of this shop.
[praise]
Thank you, that is kind!
Thanks, glad to hear that.
[status]
{order} is {status}.
The status of {order} is: {status}.
[tracking]
The tracking number of {order} is {tracking}.
{order} has the tracking number {tracking}.
[untracked]
{order} has not been shipped, so there is no tracking number yet.
{order} is {status}; a tracking number comes with the shipping.
[contents]
{order} has: {names}.
In {order} there are: {names}.
[price]
{item}: {price}.
You paid {price} for the {item}.
[paid]
{order} was paid with {method}.
You paid {order} with {method}.
[sum]
Together they are {total}.
The total is {total}.
[options]
Available: {options}.
These are available: {options}.
[profile_address]
Your address is {address}.
In your profile stands {address}.
[profile_methods]
You have {methods}.
Your payment methods: {methods}.
[profile_orders]
Your orders: {orders}.
You have {orders}.
[balance]
{method} has {balance} left.
The balance of {method} is {balance}.
""")
