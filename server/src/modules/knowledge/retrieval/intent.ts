/** What a question wants beside its words, and what a text is beside its own. Patterns for the larger languages; others go without. */

/** The question asks what the one it is put to has said: those turns are meant, also where it says "my". */
const asksForSayings: readonly RegExp[] = [
  /\b(?:did|have|had) you\b|\byou(?:'ve| have| had)? (?:recommended|suggested|advised|proposed|said|told|explained|mentioned|described|gave|given|listed|outlined|provided|showed|shown)\b|\byour (?:advice|answers?|recommendations?|suggestions?|explanation|reply)\b/i,
  /\b(?:hast|hattest) du\b|\bhaben sie mir\b|\bdu (?:mir )?(?:empfohlen|vorgeschlagen|gesagt|geraten)\b|\bdeine? (?:antwort|empfehlung(?:en)?|vorschläge?)\b/i,
  /\b(?:as-tu|avez-vous|tu m'as|vous m'avez|tu as|vous avez) (?:recommandé|conseillé|suggéré|proposé|dit|expliqué|mentionné)/i,
  /\b(?:recomendaste|sugeriste|aconsejaste|propusiste|dijiste|explicaste|mencionaste|has recomendado|has dicho)\b/i,
  /\b(?:hai|avete|avevi) (?:consigliato|raccomandato|suggerito|proposto|detto|spiegato|menzionato)\b/i,
  /你(?:之前|刚才)?(?:推荐|建议|说|告诉|解释|提到)(?:过|了)/,
];

/** The question asks for advice or for something to be made: what its author likes and dislikes bears on the answer. */
const asksForAdvice: readonly RegExp[] = [
  /\b(?:would|could|can|should|will) you\b|\bhelp me\b|\bwhat(?:'s| is| are| would be) (?:the |some |a )?(?:best|good)\b|\bhow (?:to|should i|would i|do i)\b|\b(?:suggest|recommend|advice|tips|ideas)\b/i,
  /\b(?:kannst|könntest|würdest) du\b|\bhilf mir\b|\bwie (?:soll|sollte|kann) ich\b|\b(?:empfiehl|empfehlen|vorschlagen|tipps|ideen)\b/i,
  /\b(?:peux-tu|pourrais-tu|pouvez-vous|pourriez-vous|aide-moi|aidez-moi)\b|\bcomment (?:dois-je|puis-je|faire)\b|\b(?:recommander|conseiller|suggérer|conseils|idées)\b/i,
  /\b(?:puedes|podrías|ayúdame)\b|\bcómo (?:debo|debería|puedo)\b|\b(?:recomiendas?|sugieres|sugerir|consejos|ideas)\b/i,
  /\b(?:puoi|potresti|aiutami)\b|\bcome (?:dovrei|posso)\b|\b(?:consigli|suggerimenti|idee)\b/i,
  /推荐|建议|怎么办|帮我|おすすめ|教えて|アドバイス|手伝って/,
];

const preference: readonly RegExp[] = [
  /\b(?:prefer(?:s|red|ence|ences|ring)?|would rather|i'd rather|rather than|favou?rites?|dislikes?|(?:i|he|she|they|user) (?:really )?(?:likes?|loves?|hates?|enjoys?)|i don't like|doesn't like|i want you to|please always|instead of)\b/i,
  /\b(?:bevorzug\w*|lieber|am liebsten|lieblings\w*|mag (?:ich|er|sie|keine?n?)|(?:ich|er|sie) mag|hass[et]\w*)\b/i,
  /\b(?:préfér\w*|préfèr\w*|plutôt que|(?:j'|il |elle )(?:aime|adore|déteste)|favorite?s?)/i,
  /\b(?:prefier\w*|preferenci\w*|prefiere|favorit[oa]s?|me gusta\w*|le gusta\w*|odi[ao])\b/i,
  /\b(?:prefer(?:isco|isce|ito|ita|enz[ae])|piuttosto che|(?:mi|gli|le) piac\w+|odi[ao])\b/i,
  /喜欢|偏好|更愿意|讨厌|最爱|好き|嫌い|好む|の方がいい|希望し/,
];

/** How much of a text is looked at: who states a preference does so early. */
const LOOKED_AT = 2_000;

export const asksWhatWasSaid = (question: string): boolean =>
  asksForSayings.some((pattern) => pattern.test(question));
export const asksAdvice = (question: string): boolean =>
  asksForAdvice.some((pattern) => pattern.test(question));

/** True for a text in which somebody says what they like, or how they want things done. */
export function statesPreference(text: string): boolean {
  const start = text.slice(0, LOOKED_AT);
  return preference.some((pattern) => pattern.test(start));
}
