"""What any Jupyter client does with a kernel, here ``rlm-sandbox``; raises at the first thing that fails."""

import os
import threading

from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(kernel_name="rlm-sandbox")


def run(code):
    shown = []

    def note(message):
        content = message["content"]
        shown.append(content.get("text") or content.get("data", {}).get("text/plain") or content.get("ename"))

    client.execute_interactive(code, timeout=30, output_hook=note)
    return "".join(filter(None, shown))


assert run("import os; os.path.exists('/rlm'), os.environ['USER']") == "(True, 'rlm')"
folder = manager.provisioner.folder
assert os.path.isdir(folder)

seen = threading.Event()
threading.Thread(target=lambda: (seen.wait(), manager.interrupt_kernel())).start()
client.execute("print('on'); x = 1\nwhile True: pass")
while client.get_iopub_msg(timeout=30)["header"]["msg_type"] != "stream":
    pass
seen.set()
assert client.get_shell_msg(timeout=30)["content"]["ename"] == "KeyboardInterrupt"

for now in (False, True):
    manager.restart_kernel(now=now)
    client.wait_for_ready(timeout=30)
    assert run("'x' in globals()") == "False"

client.execute("import os; os._exit(7)")
manager.provisioner.process.wait(30)
assert not manager.is_alive()
manager.restart_kernel()
client.wait_for_ready(timeout=30)
assert run("6 * 7") == "42"

client.stop_channels()
manager.shutdown_kernel()
assert not manager.is_alive()
assert not os.path.exists(folder)
print("all of it")
