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
    ihr worden wurden geworden gewesen hatten mochte mochten will wollen soll sollen muss mussen darf
    durfen sein seine seinen ihre ihren dies dieser dieses diese diesen mehr man so wenn denn doch nur mal mein meine meinen meinem meiner mir mich dein deine unser unsere`),
  french:
    list(`le la les l un une des du de d et ou est sont etait etaient sera a ont avait peut quel quelle quels
    quelles qui que quoi ou quand comment pourquoi combien dans sur sous avec sans pour par en au aux ce cet cette
    ces il elle ils elles on ne pas se plus y est-ce je tu nous vous mon ma mes moi ton ta tes notre votre son sa
    ses qu c s n j m t font fait faire fais veut veulent veux ai as avons avez avaient suis es etes soit lui leur leurs
    cela ca donc mais si meme tous toute toutes tout autre autres chez entre depuis`),
  spanish:
    list(`el la los las un una unos unas de del al y o es son era eran fue fueron sera ha han habia puede que
    quien quienes cual cuales cuando donde como cuanto cuantos por para con sin en sobre entre se su sus lo le les
    no mas este esta estos estas esto hay estan estaba estaban estoy tiene tienen tengo hace hacen quiere quieren pero si ya
    muy tambien desde hasta le donde ser estar yo tu mi mis me nos nuestro nuestra`),
  italian:
    list(`il lo la i gli le un uno una di del dello della dei degli delle da dal dalla in nel nella nei e o e'
    sono era erano fu ha hanno aveva puo che chi cosa quale quali quando dove come perche quanto con su sul sulla
    per tra fra si non piu sta stanno stato stata fa fanno vuole vogliono ma anche gia molto ne dopo prima essere avere questo questa questi queste io tu mio mia miei mie mi ci nostro nostra`),
  portuguese:
    list(`o a os as um uma uns umas de do da dos das em no na nos nas e ou sao era eram foi foram tem
    pode que quem qual quais quando onde como por quanto para pelo pela com sem sobre entre se seu sua nao mais
    este esta estao estava tem tinha faz fazem quer querem mas ja muito tambem desde ate depois isso eu tu meu minha meus minhas me nosso nossa voce`),
  dutch:
    list(`de het een en of is zijn was waren wordt worden heeft hebben had kan kunnen wat wie waar wanneer
    waarom hoe welke welk met van voor door over onder naar uit bij op in aan als ook niet er dat die dit deze gaan gaat wil willen moet moeten zou nog maar dan ik
    jij hij zij wij mijn mij me jouw onze ons`),
  swedish:
    list(`en ett den det de och eller ar var vara blir har hade kan vad vem vilken vilket vilka nar hur varfor
    med av fran till pa i om for under efter som inte sig att dar jag du han hon vi min mitt mina mig din`),
  danish:
    list(`en et den det de og eller er var bliver har havde kan hvad hvem hvilken hvilket hvilke hvornar hvor
    hvordan hvorfor med af fra til pa i om for under efter som ikke sig at der jeg du han hun vi min mit mine mig din
    vores ogsa nar`),
  norwegian:
    list(`en et ei den det de og eller er var blir har hadde kan hva hvem hvilken hvilket hvilke nar hvor
    hvordan hvorfor med av fra til pa i om for under etter som ikke seg at der jeg du han hun vi min mitt mine meg din
    var ogsa`),
  finnish: list(`ja tai on ovat oli olivat ei mika mita mitka kuka kenen milloin missa mista mihin miten miksi
    kuinka joka jotka kun jos etta mutta se ne tama nama han he mina sina me minun sinun hanen meidan minulla`),
  hungarian:
    list(`a az egy es vagy van vannak volt voltak lesz nem mi mit ki kit kinek mikor hol hova honnan hogyan
    miert mennyi melyik hogy de ha ez ezek azok en te o mi ti ok enyem nekem`),
  romanian:
    list(`un o unei unui al a ai ale si sau este sunt era erau fost are au avea poate ce care cine cand unde
    cum de cat cati pe cu fara la in din pentru despre dupa nu mai acest aceasta acesta acestea eu tu el ea noi meu mea`),
  turkish:
    list(`ve veya bir bu su o ne kim kimin hangi hangisi nasil neden nicin kac var yok degil mi mu icin ile
    gibi kadar daha cok en ben sen biz siz onlar benim senin bizim olan oldu olarak nerede`),
  polish:
    list(`i w na z do nie sie jest sa byl byla bylo byly ma co kto kiedy gdzie jak dlaczego ile ktory ktora
    ktore czy oraz lub ale po od dla przez przed ten ta to te ja ty on ona my moj moja moje mnie mam`),
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
  danish: list('jeg min mit mine mig vi vores'),
  norwegian: list('jeg min mitt mine meg vi var vart vare'),
  finnish: list('mina minun minulla minua me meidan'),
  hungarian: list('en enyem nekem engem mi'),
  romanian: list('eu meu mea mei mele mie noi nostru noastra'),
  turkish: list('ben benim bana beni biz bizim'),
  polish: list('ja moj moja moje mnie mi mam nasz nasza my'),
  russian: list('я мне меня мой моя мое мои моего моей мы нас наш'),
  arabic: list('انا لي'),
  hindi: list('मैं मेरा मेरी मेरे मुझे हम हमारा'),
};

/** First person where words are not separated by spaces, and Korean with its particles. */
export const FIRST_PERSON_CJK = /[我咱私僕俺]|(?:^|\s)(?:나|내|제|저|우리)(?:는|가|의|를|에게)?(?:\s|$)/u;

/** Characters that carry no subject in Chinese; a pair of them is not searched, a pair with one says little. */
export const FUNCTION_CHARACTERS: ReadonlySet<string> = new Set(
  '的了是吗嗎呢吧啊么麼什谁誰哪怎样樣几幾些我你您他她它们們这這那个個张張就也都还還被把为為和与與或给給让讓跟请請何对對在有要会會',
);

/** Words of two characters that say nothing about a subject. */
export const FUNCTION_PAIRS: ReadonlySet<string> = new Set(
  `时候 時候 哪里 哪裡 哪儿 多少 是否 可以 可能 已经 已經 还是 還是 或者 因为 因為 所以 但是 如果 一个 一個 没有 沒有 自己 之前
  之后 之後 现在 現在 一些 一下 怎么 怎麼 为什 為什 知道 需要 应该 應該`.split(/\s+/),
);

/** Pairs of kana that end sentences, ask, or join words in Japanese. */
export const FUNCTION_KANA: ReadonlySet<string> = new Set(
  `です ます ました ません でし まし まし した して てい いま いる ある され れた れて ない から まで など とは には では もの
  こと この その あの どの どれ どこ なぜ いつ だれ なに なん さい くだ ださ たい ても でも のは のが のを のに のか すか
  たか るか か? ので のた ため より ほど とき れは これ それ れど はど こに はい つの がい いい れる られ てる にあ あり りま
  んで いで でく はど はだ`.split(/\s+/),
);

/** Particles that cling to Korean words. */
export const KOREAN_PARTICLES: ReadonlySet<string> = new Set('은는이가을를에의로와과도만요까');
