import type { App } from '#platform/context.ts';
import type { EmbeddingLink } from '#platform/models/embeddings.ts';
import { failureOf, ModelError, type ModelFailure } from '#platform/models/model-error.ts';
import { perApp } from '#platform/per-app.ts';

/** How a model of the chain does, as this process sees it. */
export interface LinkHealth {
  /** Undefined before the first call. */
  working: boolean | undefined;
  /** Since when it works, or fails. */
  since: string | undefined;
  lastFailure: { kind: ModelFailure; message: string | null; at: string } | undefined;
}

const healthOf = perApp(() => new WeakMap<EmbeddingLink, LinkHealth>());

export const linkHealth = (app: App, link: EmbeddingLink): LinkHealth =>
  healthOf(app).get(link) ?? { working: undefined, since: undefined, lastFailure: undefined };

export function noteWorking(app: App, link: EmbeddingLink): void {
  const before = linkHealth(app, link);
  if (before.working) return;
  healthOf(app).set(link, { ...before, working: true, since: new Date().toISOString() });
  app.metrics.embeddingLinks.set({ link: link.label }, 1);
}

/** @returns the kind of failure */
export function noteFailing(app: App, link: EmbeddingLink, error: unknown): ModelFailure {
  const kind = failureOf(error);
  app.metrics.embeddingFailures.inc({ link: link.label, kind });
  // A refused text, or a call that was not made, says nothing new.
  if (kind === 'refused' || kind === 'breaker_open') return kind;
  const before = linkHealth(app, link);
  const at = new Date().toISOString();
  const since = before.working === false ? before.since : at;
  const message = error instanceof ModelError ? error.message : null;
  healthOf(app).set(link, { working: false, since, lastFailure: { kind, message, at } });
  app.metrics.embeddingLinks.set({ link: link.label }, 0);
  return kind;
}
