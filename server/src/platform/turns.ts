const sliceMs = 1;

/**
 * For long work on the main thread, asked after each step: nothing to wait for, or the next turn once a slice is over. Everybody
 * who waits gets one turn after another, and between two of them the server looks once at its sockets: however many do
 * long work at once, a short request waits for one slice of it only.
 *
 *     const others = takingTurns();
 *     for (const text of texts) { analyse(text); const turn = others(); if (turn) await turn; }
 */
export function takingTurns(): () => Promise<void> | undefined {
  let until = performance.now() + sliceMs;
  return () =>
    performance.now() < until
      ? undefined
      : new Promise<void>((resolve) => {
          const go = () => {
            until = performance.now() + sliceMs;
            resolve();
          };
          if (waiting.push(go) === 1) setImmediate(next);
        });
}

const waiting: (() => void)[] = [];

function next(): void {
  waiting.shift()!();
  if (waiting.length > 0) setImmediate(next);
}
