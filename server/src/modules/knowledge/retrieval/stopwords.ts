/** Word lists of the query side. Documents keep every word; all entries are folded (lower case, no accents). */

const list = (words: string): ReadonlySet<string> => new Set(words.split(/\s+/).filter(Boolean));

/** English words dropped from a query. I, my and you stay: they tell user turns from assistant turns. */
export const ENGLISH_DROPPED = list(`
  what when where who whom whose which why how do does did is are was were be been have has had can could
  should would will shall may might the a an of to in on at for with by from and or that this these those
  there it its as than then so if about into over any some`);

/** Further English words that say nothing about a subject: they hardly count when a match is judged. */
export const ENGLISH_FUNCTION = list(`
  i me my mine myself i'm i've i'd i'll you you're you've you'd your yours yourself he him his she her hers we us our ours they them their theirs
  am being having doing don't doesn't didn't isn't aren't wasn't won't can't couldn't shouldn't wouldn't
  not no nor only also just very too more most much many few other another such own same both each every all
  here again once ever never always still already yet up down out off under between through during before
  after above below against until while because but although though however whether tell give show let please
  explain describe list find get got help know say said like want need make made us ok yes really
  something anything someone anyone currently`);

/** Words any store of memories is full of; half evidence at best. */
export const GENERAL = list(`
  user users person people thing things info information memory memories note notes question questions answer
  detail details name fact facts stuff item items conversation message messages chat client customer`);

/** Function words of other languages: used to recognise the language of a query and dropped from it then. */
export const FUNCTION_WORDS: Readonly<Record<string, ReadonlySet<string>>> = {
  german:
    list(`der die das den dem des ein eine einen einem einer eines und oder ist sind war waren wird werden
    wurde hat haben hatte kann konnen wie was wo wer wann warum welche welcher welches wem wen mit von vom zu zum
    zur im in am an auf aus bei fur uber unter nach vor durch als auch nicht es sich dass ob gibt ich du er sie wir
    ihr mein meine meinen meinem meiner mir mich dein deine unser unsere`),
  french:
    list(`le la les l un une des du de d et ou est sont etait etaient sera a ont avait peut quel quelle quels
    quelles qui que quoi ou quand comment pourquoi combien dans sur sous avec sans pour par en au aux ce cet cette
    ces il elle ils elles on ne pas se plus y est-ce je tu nous vous mon ma mes moi ton ta tes notre votre son sa
    ses qu c s n j m t`),
  spanish:
    list(`el la los las un una unos unas de del al y o es son era eran fue fueron sera ha han habia puede que
    quien quienes cual cuales cuando donde como cuanto cuantos por para con sin en sobre entre se su sus lo le les
    no mas este esta estos estas esto hay yo tu mi mis me nos nuestro nuestra`),
  italian:
    list(`il lo la i gli le un uno una di del dello della dei degli delle da dal dalla in nel nella nei e o e'
    sono era erano fu ha hanno aveva puo che chi cosa quale quali quando dove come perche quanto con su sul sulla
    per tra fra si non piu questo questa questi queste io tu mio mia miei mie mi ci nostro nostra`),
  portuguese:
    list(`o a os as um uma uns umas de do da dos das em no na nos nas e ou sao era eram foi foram tem
    pode que quem qual quais quando onde como por quanto para pelo pela com sem sobre entre se seu sua nao mais
    este esta isso eu tu meu minha meus minhas me nosso nossa voce`),
  dutch:
    list(`de het een en of is zijn was waren wordt worden heeft hebben had kan kunnen wat wie waar wanneer
    waarom hoe welke welk met van voor door over onder naar uit bij op in aan als ook niet er dat die dit deze ik
    jij hij zij wij mijn mij me jouw onze ons`),
  swedish:
    list(`en ett den det de och eller ar var vara blir har hade kan vad vem vilken vilket vilka nar hur varfor
    med av fran till pa i om for under efter som inte sig att dar jag du han hon vi min mitt mina mig din`),
  russian:
    list(`и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по ее мне было вот от
    меня о из ему когда где кто какой какая какие какое почему зачем сколько это этот эта эти мой моя мое мои
    моего моей мы наш ли для при или быть был была были есть`),
  arabic: list(
    'من في علي الي عن ما ماذا هل هو هي هذا هذه التي الذي كيف اين متي لماذا كم و او ان كان انا لي مع',
  ),
  hindi: list(`का की के है हैं में से को और या क्या कब कहाँ कहां कौन कैसे क्यों कितना कितने यह वह ये वे था थी थे पर ने मैं
    मेरा मेरी मेरे मुझे हम हमारा`),
};

/** First person, by language; 'english' for queries of no other recognised language. */
export const FIRST_PERSON: Readonly<Record<string, ReadonlySet<string>>> = {
  english: list("i me my mine myself we us our ours i'm i've i'd i'll we're we've we'd we'll"),
  german: list('ich mein meine meinen meinem meiner meines mir mich wir uns unser unsere'),
  french: list('je j moi mon ma mes nous notre nos'),
  spanish: list('yo mi mis me nos nosotros nuestro nuestra'),
  italian: list('io mio mia miei mie mi noi nostro nostra'),
  portuguese: list('eu meu minha meus minhas me nosso nossa'),
  dutch: list('ik mijn mij me wij ons onze'),
  swedish: list('jag min mitt mina mig vi var vart vara'),
  russian: list('я мне меня мой моя мое мои моего моей мы нас наш'),
  arabic: list('انا لي'),
  hindi: list('मैं मेरा मेरी मेरे मुझे हम हमारा'),
};

/** First person where words are not separated by spaces, and Korean with its particles. */
export const FIRST_PERSON_CJK = /[我咱私僕俺]|(?:^|\s)(?:나|내|제|저|우리)(?:는|가|의|를|에게)?(?:\s|$)/u;
