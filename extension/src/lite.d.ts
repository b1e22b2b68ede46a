// What is used of JupyterLite, which is there at run time only: plain JupyterLab has none of it. Version 0.8.
declare module "@jupyterlite/services" {
  import type { KernelMessage } from "@jupyterlab/services";
  import type { Token } from "@lumino/coreutils";

  export interface IKernel {
    readonly id: string;
    readonly ready: Promise<void>;
    dispose(): void;
  }
  export namespace IKernel {
    interface IOptions {
      id: string;
      name: string;
      location: string;
      sendMessage: (message: KernelMessage.IMessage) => void;
    }
  }
  export interface IKernelSpecs {
    register(options: {
      spec: {
        name: string;
        display_name: string;
        language: string;
        argv: string[];
        resources: Record<string, string>;
      };
      create: (options: IKernel.IOptions) => Promise<IKernel>;
    }): void;
  }
  export const IKernelSpecs: Token<IKernelSpecs>;

  export interface IKernelClient {
    handleStdin(request: KernelMessage.IInputRequestMsg): Promise<KernelMessage.IInputReplyMsg>;
  }
  export const IKernelClient: Token<IKernelClient>;
}

declare module "@jupyterlite/pyodide-kernel" {
  import type { IKernel } from "@jupyterlite/services";

  export const PyodideKernel: new (options: PyodideKernel.IOptions) => IKernel;
  export namespace PyodideKernel {
    interface IOptions extends IKernel.IOptions {
      pyodideUrl: string;
      pipliteWheelUrl?: string;
      pipliteUrls: string[];
      disablePyPIFallback: boolean;
      mountDrive: boolean;
      loadPyodideOptions: Record<string, unknown>;
      browsingContextId: string;
      logger: (log: { kernelId: string; payload: { level: string; data: string } }) => void;
    }
  }
}
