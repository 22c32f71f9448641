// Web Locks for tabs of one process: exclusive, first come first served, freed when the job ends. Node 20 has none.

type Job<T> = (lock: object | null) => T | Promise<T>;
type Options = { ifAvailable?: boolean; signal?: AbortSignal };

export class Locks {
  private waiting = new Map<string, (() => void)[]>();

  request = async <T>(name: string, options: Options, job: Job<T>): Promise<T> => {
    const queue = this.waiting.get(name);
    if (queue && options.ifAvailable) return job(null);
    if (!queue) this.waiting.set(name, []);
    else
      await new Promise<void>((granted, refused) => {
        queue.push(granted);
        options.signal?.addEventListener("abort", () => {
          const at = queue.indexOf(granted);
          if (at >= 0) queue.splice(at, 1);
          refused(options.signal!.reason);
        });
      });
    try {
      return await job({});
    } finally {
      const next = this.waiting.get(name)!.shift();
      if (next) next();
      else this.waiting.delete(name);
    }
  };
}
