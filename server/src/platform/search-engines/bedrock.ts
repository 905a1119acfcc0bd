import type {
  BedrockAgentRuntimeClient,
  KnowledgeBaseRetrievalResult,
  RetrieveCommandOutput,
} from '@aws-sdk/client-bedrock-agent-runtime';
import type { Config } from '../config.ts';
import {
  callEngine,
  engineFailure,
  type FoundPassage,
  forGood,
  keptFor,
  policiesOf,
  readAnswer,
  share,
} from './engine.ts';

export interface KnowledgeBase {
  knowledge_base_id: string;
  /** Unset: AWS_REGION of the server. */
  region?: string | undefined;
}

/** Of a query the API takes no more. */
const longestQuery = 1_000;
const mostResults = 100;

/** Credentials that are missing, expired or wrong, as the SDK and the service call it. */
const badCredentials =
  /^(CredentialsProviderError|ProviderError|TokenProviderError|UnrecognizedClientException|InvalidSignatureException|InvalidClientTokenId|ExpiredToken(Exception)?|SignatureDoesNotMatch|IncompleteSignature(Exception)?|MissingAuthenticationToken(Exception)?|UnauthorizedException)$/;

/** What passes by itself. */
const passing =
  /^(ThrottlingException|TooManyRequestsException|ServiceUnavailable(Exception)?|InternalServerException|InternalServerError|DependencyFailedException|BadGatewayException|TimeoutError|RequestTimeout|AbortError)$/;

/**
 * Knowledge bases of Amazon Bedrock, by the Retrieve call of the AWS SDK. Credentials come from the SDK's own chain
 * (environment, profile, web identity, instance). The SDK is loaded with the first search.
 */
export function bedrockKnowledgeBases(config: Config) {
  const open = async (region: string): Promise<BedrockAgentRuntimeClient> => {
    const [{ BedrockAgentRuntimeClient }, { NodeHttpHandler }] = await Promise.all([
      import('@aws-sdk/client-bedrock-agent-runtime'),
      import('@smithy/node-http-handler'),
    ]);
    const endpoint = config.AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME;
    return new BedrockAgentRuntimeClient({
      region,
      // Retries are ours, so that their time and the breaker are those of every outside call.
      maxAttempts: 1,
      // By itself the client speaks HTTP/2, which proxies and stand-ins before AWS often do not.
      requestHandler: new NodeHttpHandler({
        connectionTimeout: Math.min(config.EXT_CALL_TIMEOUT_MS, 5_000),
        requestTimeout: config.EXT_CALL_TIMEOUT_MS,
      }),
      ...(endpoint ? { endpoint } : {}),
    });
  };

  const clients = keptFor(100, open);
  const policyOf = policiesOf(config);

  const regionOf = ({ region }: KnowledgeBase): string => {
    const named = region ?? config.AWS_REGION ?? config.AWS_DEFAULT_REGION;
    if (!named) throw engineFailure('AWS_CONFIG_MISSING');
    return named;
  };

  return {
    /** Passages, the most relevant first. @throws ApiError AWS_CONFIG_MISSING, AWS_AUTH_ERROR, AWS_RETRIEVAL_ERROR, INTEGRATION_UNAVAILABLE */
    search: async (
      base: KnowledgeBase,
      query: string,
      limit: number,
      signal: AbortSignal,
    ): Promise<FoundPassage[]> => {
      const region = regionOf(base);
      const client = await clients.of(region);
      const policy = policyOf(`${region}/${base.knowledge_base_id}`);
      const { RetrieveCommand } = await import('@aws-sdk/client-bedrock-agent-runtime');
      const output = await callEngine(policy, signal, async (abortSignal) => {
        const command = new RetrieveCommand({
          knowledgeBaseId: base.knowledge_base_id,
          retrievalQuery: { text: query.slice(0, longestQuery).toWellFormed() },
          retrievalConfiguration: {
            vectorSearchConfiguration: { numberOfResults: Math.min(limit, mostResults) },
          },
        });
        try {
          return await client.send(command, { abortSignal });
        } catch (error) {
          throw classified(error);
        }
      });
      return readAnswer('AWS_RETRIEVAL_ERROR', () => passagesOf(output));
    },
    close: async () => {
      for (const client of await Promise.all(clients.all())) client.destroy();
    },
  };
}

/** The error itself where another attempt may help, else one that ends the attempts. */
function classified(error: unknown): unknown {
  const { name = '', $metadata } = error as { name?: string; $metadata?: { httpStatusCode?: number } };
  if (badCredentials.test(name)) return forGood(engineFailure('AWS_AUTH_ERROR', error));
  const status = $metadata?.httpStatusCode;
  // Without a status the service did not answer: a connection was refused or lost.
  const answered = status !== undefined && status < 500 && status !== 429 && status !== 408;
  if (passing.test(name) || (!answered && name !== 'SyntaxError')) return error;
  return forGood(engineFailure('AWS_RETRIEVAL_ERROR', error));
}

function passagesOf({ retrievalResults }: RetrieveCommandOutput): FoundPassage[] {
  if (!Array.isArray(retrievalResults))
    throw engineFailure('AWS_RETRIEVAL_ERROR', new Error('no retrievalResults'));
  return retrievalResults.flatMap((result) => {
    const text = result.content?.text;
    return typeof text === 'string' && text.trim() !== '' ? [passageOf(result, text)] : [];
  });
}

function passageOf(result: KnowledgeBaseRetrievalResult, text: string): FoundPassage {
  const { location, metadata = {}, score } = result;
  const own = (name: string) => metadata[`x-amz-bedrock-kb-${name}`];
  const source =
    location?.s3Location?.uri ??
    location?.webLocation?.url ??
    location?.confluenceLocation?.url ??
    location?.salesforceLocation?.url ??
    location?.sharePointLocation?.url ??
    location?.kendraDocumentLocation?.uri ??
    location?.customDocumentLocation?.id ??
    own('source-uri');
  const page = Number(own('document-page-number'));
  const id = own('chunk-id');
  return {
    id: typeof id === 'string' ? id : undefined,
    text,
    source: typeof source === 'string' ? source : '',
    title: typeof metadata.title === 'string' ? metadata.title : undefined,
    content_type: undefined,
    relevance: share(score),
    page: Number.isInteger(page) && page > 0 ? page : undefined,
    metadata: metadata as Record<string, unknown>,
  };
}
