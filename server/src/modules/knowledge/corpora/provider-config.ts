import type { Config } from '#platform/config.ts';
import { type FieldProblem, invalid } from '#platform/errors.ts';
import type { ProviderConfig, Retrieval } from './schema.ts';

const topK = 5;
const path = '/provider_config_json';

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A field of a provider: what it must look like, and the setting of the server that may stand in for it. */
interface Field {
  form: RegExp;
  must: string;
  setting?: (config: Config) => string | undefined;
  named?: string;
  /** Names what is searched. */
  isResource?: true;
}

// They become parts of addresses that are called: nothing in them may lead anywhere else.
const providers: Record<Retrieval['provider'], Record<string, Field>> = {
  local_pgvector: {},
  aws_bedrock_kb: {
    knowledge_base_id: {
      form: /^[0-9A-Za-z]{1,64}$/,
      must: 'must be the id of a knowledge base: letters and digits',
      isResource: true,
    },
    region: {
      form: /^[a-z]{2,4}(-[a-z]{2,12}){1,3}-\d{1,2}$/,
      must: 'must be a region of AWS, for example us-east-1',
      setting: ({ AWS_REGION, AWS_DEFAULT_REGION }) => AWS_REGION ?? AWS_DEFAULT_REGION,
      named: 'AWS_REGION',
    },
  },
  gcp_vertex: {
    project: {
      form: /^[a-z0-9][a-z0-9-]{0,62}$/,
      must: 'must be the id or number of a project of Google Cloud',
      setting: ({ GOOGLE_CLOUD_PROJECT }) => GOOGLE_CLOUD_PROJECT,
      named: 'GOOGLE_CLOUD_PROJECT',
    },
    location: {
      form: /^[a-z]{2,20}(-[a-z]{2,20}\d{1,2})?$/,
      must: 'must be a location of Google Cloud: global, us, eu or a region',
      setting: ({ GOOGLE_CLOUD_LOCATION, VERTEX_LOCATION }) => GOOGLE_CLOUD_LOCATION ?? VERTEX_LOCATION,
      named: 'GOOGLE_CLOUD_LOCATION',
    },
    resource_id: {
      form: /^(?:dataStores\/|engines\/)?[A-Za-z0-9][\w-]{0,62}$/,
      must: 'must be the id of a data store, or engines/ and the id of a search app',
      isResource: true,
    },
  },
};

const isProvider = (value: unknown): value is Retrieval['provider'] =>
  typeof value === 'string' && Object.hasOwn(providers, value);

/**
 * Whether a tenant may ask for this resource: all tenants share the credentials of the server, so what those reach is not
 * yet what each of them may read.
 */
function mayAsk({ RETRIEVAL_RESOURCES: allowed }: Config, tenant: string, resource: unknown): boolean {
  return (
    allowed.length === 0 || allowed.includes(`${tenant}:${resource}`) || allowed.includes(`*:${resource}`)
  );
}

/**
 * Checks where a corpus is to be searched and fills in what was left out; `{}` is `local_pgvector` with five results.
 * @param isStored it was taken once: a setting that has gone since is told by whoever is called without it
 * @throws ApiError 422 naming each field that is wrong
 */
export function readProviderConfig(
  input: Record<string, unknown> | undefined,
  config: Config,
  tenant: string,
  isStored = false,
): ProviderConfig {
  const given = input ?? {};
  const problems: FieldProblem[] = [];
  const wrong = (where: string, message: string) => problems.push({ path: `${path}${where}`, message });
  const onlyKnown = (value: object, known: string[], where: string) => {
    for (const name of Object.keys(value)
      .filter((one) => !known.includes(one))
      .slice(0, 20))
      wrong(`${where}/${name.slice(0, 100)}`, 'is not a known field');
  };
  onlyKnown(given, ['retrieval'], '');
  const retrieval = given.retrieval ?? {};
  if (!isObject(retrieval)) {
    wrong('/retrieval', 'must be an object');
    throw invalid(problems);
  }
  const { provider = 'local_pgvector', top_k_default = topK } = retrieval;
  if (!isProvider(provider)) {
    wrong('/retrieval/provider', `must be one of ${Object.keys(providers).join(', ')}`);
    throw invalid(problems);
  }
  const fields = providers[provider];
  onlyKnown(retrieval, ['provider', 'top_k_default', ...Object.keys(fields)], '/retrieval');
  for (const [name, { form, must, setting, named, isResource }] of Object.entries(fields)) {
    const value = retrieval[name];
    if (value === undefined && setting && (isStored || setting(config) !== undefined)) continue;
    if (value === undefined)
      wrong(`/retrieval/${name}`, named ? `is required: the server has no ${named}` : 'is required');
    else if (typeof value !== 'string' || !form.test(value)) wrong(`/retrieval/${name}`, must);
    else if (isResource && !mayAsk(config, tenant, value))
      wrong(`/retrieval/${name}`, 'is not a resource this tenant may use on this server');
  }
  if (!Number.isInteger(top_k_default) || (top_k_default as number) < 1 || (top_k_default as number) > 50)
    wrong('/retrieval/top_k_default', 'must be a whole number from 1 to 50');
  if (problems.length > 0) throw invalid(problems);
  return { retrieval: { provider, ...retrieval, top_k_default } as Retrieval };
}

/** True when a stored configuration is one of the three shapes, of a resource that may still be asked. */
export function isUsable(stored: ProviderConfig, config: Config, tenant: string): boolean {
  try {
    readProviderConfig(stored as unknown as Record<string, unknown>, config, tenant, true);
    return true;
  } catch {
    return false;
  }
}
