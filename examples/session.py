"""A session: three questions over one log, asked one after the other in the same kernel.

What the model made for the first question (parsed lines, say) is still there for the second. The third brings
a newer log: that is `context` then, and the first one `context_0`.

The model and its endpoint come from the environment: RLM_MODEL, OPENAI_API_KEY, OPENAI_BASE_URL.
"""

from rlm_kernel import RLM

MONDAY = """\
08:00 pump 1 started
09:30 pump 2 started
11:15 pump 1 stopped: pressure
11:20 pump 1 started
16:00 pump 2 stopped: end of shift
17:45 pump 1 stopped: pressure
"""
TUESDAY = """\
08:05 pump 1 started
08:40 pump 1 stopped: pressure
08:45 pump 2 started
16:00 pump 2 stopped: end of shift
"""

with RLM() as rlm, rlm.session(MONDAY) as session:
    print(session.ask("How often did a pump stop because of the pressure?"))
    print(session.ask("Which pump was that?"))
    print(session.ask("Is it the same pump on the day after?", TUESDAY))
    for entry in session.history:
        print(f"{entry['question']} {entry['status']}")
