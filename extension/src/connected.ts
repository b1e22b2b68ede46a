// A kernel that the page has started for a notebook's kernel: its connection, as a relay needs it.
//
// Answers to `input()` go to whatever asked, by the id of the question, and never to a later one.
import { KernelMessage } from "@jupyterlab/services";
import type { Kernel } from "@jupyterlab/services";

import { REPL_KERNEL } from "./protocol";
import type { JupyterMessage } from "./protocol";
import type { Listener, ReplKernel } from "./relay";
import type { ReplKernels } from "./replkernel";

/** Start a kernel and connect it to `listener`. */
export async function startKernel(
  kernels: Pick<Kernel.IManager, "startNew">,
  repls: Pick<ReplKernels, "watch" | "unwatch">,
  listener: Listener,
  givenUp: AbortSignal,
): Promise<ReplKernel> {
  const connection = await kernels.startNew({ name: REPL_KERNEL }, { handleComms: false });
  const kernel = new Connected(connection, repls, listener);
  try {
    await Promise.race([
      connection.info,
      new Promise((_, reject) => {
        kernel.onBroken = (reason) => {
          reject(new Error(reason));
        };
        givenUp.addEventListener("abort", () => {
          reject(new Error("it was given up"));
        });
        if (givenUp.aborted) reject(new Error("it was given up"));
      }),
    ]);
  } catch (error) {
    await kernel.shutdown();
    throw error;
  }
  kernel.onBroken = (reason) => {
    listener.ended(reason);
  };
  return kernel;
}

class Connected implements ReplKernel {
  constructor(
    connection: Kernel.IKernelConnection,
    repls: Pick<ReplKernels, "watch" | "unwatch">,
    listener: Listener,
  ) {
    this.#connection = connection;
    this.#repls = repls;
    connection.anyMessage.connect((_, { msg, direction }) => {
      if (direction === "recv") listener.deliver(plain(msg));
    });
    connection.statusChanged.connect((_, status) => {
      if (status === "dead" || status === "terminating") this.onBroken("it was shut down");
    });
    repls.watch(connection.id, {
      input: (request, answer) => {
        this.#waiting.set(request.header.msg_id, answer);
        listener.deliver(plain(request));
      },
      broken: (reason) => {
        this.onBroken(reason);
      },
    });
  }

  onBroken: (reason: string) => void = () => undefined;

  get id(): string {
    return this.#connection.id;
  }

  send(message: JupyterMessage): void {
    const { channel, content } = message;
    if (channel === "stdin") {
      this.#answer(message);
      return;
    }
    const session = this.#connection.clientId;
    const { msg_id: msgId, msg_type: msgType } = message.header;
    const made = KernelMessage.createMessage({
      channel,
      content,
      msgId,
      msgType,
      session,
    } as unknown as KernelMessage.IOptions<KernelMessage.IExecuteRequestMsg>);
    if (channel === "control") {
      this.#connection.sendControlMessage(made as unknown as KernelMessage.IControlMessage, false, true);
    } else this.#connection.sendShellMessage(made, false, true);
  }

  #answer(reply: JupyterMessage): void {
    const asked = String(reply.parent_header.msg_id);
    const answer = this.#waiting.get(asked);
    if (answer) {
      this.#waiting.delete(asked);
      answer(reply);
    } else {
      // Not by the service worker, but by shared memory, where the page is isolated from other origins.
      const header = reply.parent_header as unknown as KernelMessage.IInputReplyMsg["parent_header"];
      this.#connection.sendInputReply(reply.content as unknown as KernelMessage.IInputReply, header);
    }
  }

  interrupt(): Promise<void> {
    return this.#connection.interrupt();
  }

  async restart(): Promise<void> {
    this.#waiting.clear();
    await this.#connection.restart();
    await this.#connection.info;
  }

  async shutdown(): Promise<void> {
    this.onBroken = () => undefined;
    this.#repls.unwatch(this.id);
    this.#waiting.clear();
    await this.#connection.shutdown();
    this.#connection.dispose();
  }

  readonly #connection: Kernel.IKernelConnection;
  readonly #repls: Pick<ReplKernels, "watch" | "unwatch">;
  readonly #waiting = new Map<string, (reply: JupyterMessage) => void>();
}

/** A message as it goes on the channel. */
function plain(message: KernelMessage.IMessage | JupyterMessage): JupyterMessage {
  const { channel, header, parent_header, metadata, content } = message as JupyterMessage;
  return { channel, header, parent_header, metadata, content };
}
