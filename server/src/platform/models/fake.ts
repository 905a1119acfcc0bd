import { setTimeout as sleep } from 'node:timers/promises';
import { type AnswerModel, AnswerModelError } from './answers.ts';

const sentence = 'This is a fake response.';

/**
 * A model for tests: says one sentence, word by word. What the last message holds changes that: `fake:slow <ms>`
 * waits before each word, `fake:fail` breaks off in mid-sentence, `fake:hang` says one word and then nothing more.
 */
export function fakeAnswers(): AnswerModel {
  return {
    name: 'fake',
    async *stream({ messages }, signal) {
      const asked = messages.at(-1)?.content ?? '';
      const waitMs = Number(/fake:slow (\d{1,6})/.exec(asked)?.[1] ?? 0);
      for (const [index, word] of sentence.split(' ').entries()) {
        signal.throwIfAborted();
        if (waitMs > 0) await sleep(waitMs, undefined, { signal });
        if (index === 2 && asked.includes('fake:fail')) throw new AnswerModelError('LLM_ERROR');
        if (index === 1 && asked.includes('fake:hang'))
          await sleep(3_600_000, undefined, { signal, ref: false });
        yield `${word} `;
      }
      return { finish_reason: 'stop', usage: null };
    },
  };
}
