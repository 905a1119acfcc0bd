import type { Config } from '../config.ts';
import type { App } from '../context.ts';
import { perApp } from '../per-app.ts';
import { bedrockKnowledgeBases } from './bedrock.ts';
import { vertexSearch } from './vertex.ts';

export type { FoundPassage } from './engine.ts';

/** The outside search engines of a process. Nothing of them is loaded before the first search. */
export interface SearchEngines {
  bedrock: ReturnType<typeof bedrockKnowledgeBases>;
  vertex: ReturnType<typeof vertexSearch>;
}

const open = (config: Config): SearchEngines => ({
  bedrock: bedrockKnowledgeBases(config),
  vertex: vertexSearch(config),
});

export const searchEnginesOf = perApp((app: App): SearchEngines => {
  const engines = open(app.config);
  app.closing.addEventListener('abort', () => {
    for (const engine of [engines.bedrock, engines.vertex])
      engine.close().catch((error) => app.log.warn({ err: error }, 'a search engine did not close'));
  });
  return engines;
});
