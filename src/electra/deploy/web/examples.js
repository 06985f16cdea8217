// Examples to click, by task: [language of the text, what the button says, values of the form].
//
// To change them, edit this file where the package is installed; a value has the name of its field in fields.js.

const REVIEWS = [
  ["en", "a fine film", { text: "A warm, funny and beautifully acted film that stays with you for days." }],
  ["en", "a dull film", { text: "Two hours of clichés; even the actors look as if they wanted to go home." }],
  ["zh", "满意的评论", { text: "房间很干净，服务员热情周到，下次还会再来。" }],
  ["zh", "失望的评论", { text: "屏幕用了两天就坏了，客服一直不回复，太失望了。" }],
];
const QUESTIONS = [
  ["en", "which river", { text: "Which river flows through the city of Prague?" }],
  ["en", "how many", { text: "How many people live in Iceland?" }],
  ["zh", "体育新闻", { text: "国足热身赛两球取胜，新帅赛后称赞年轻球员。" }],
  ["zh", "财经新闻", { text: "央行宣布下调存款准备金率，银行股集体走高。" }],
];
const PAIRS = [
  ["en", "the same", { text: "How do I reset my password?", pair: "What should I do to get a new password?" }],
  ["en", "not the same", { text: "A man is playing a guitar.", pair: "A woman is cutting onions." }],
  ["zh", "同一问题", { text: "怎样修改登录密码？", pair: "登录密码在哪里可以改？" }],
  ["zh", "不同问题", { text: "怎样修改登录密码？", pair: "怎样注销账户？" }],
];

const EXAMPLES = {
  tag: [
    ["en", "a trip", { text: "Maria Schmidt flew from Berlin to Tokyo last May to meet engineers of Sony and to see the Ghibli Museum." }],
    ["en", "a post", { text: "just saw Taylor Swift at Wembley Stadium, my new iPhone took great pictures!" }],
    ["zh", "人物", { text: "一九二一年，鲁迅在北京发表了小说《阿Q正传》，当时他在教育部任职。" }],
    ["zh", "公司", { text: "王芳从清华大学毕业后，加入了位于深圳的华为公司。" }],
  ],
  span: [
    ["en", "a bridge", { question: "When was the bridge opened?", context: "The old stone bridge crosses the river below the mill. It was built by Anna Weber and opened in 1931 by the mayor. Today some 4,000 people cross it every day." }],
    ["en", "no answer", { question: "Who painted the bridge?", context: "The old stone bridge crosses the river below the mill. It was opened in 1931 by the mayor." }],
    ["zh", "图书馆", { question: "图书馆的馆长是谁？", context: "市图书馆坐落在湖边，一九八五年建成，藏书三十万册。现任馆长是王芳，她在这里工作了二十年。" }],
  ],
  relation: [
    ["en", "cause and effect", { marked: "The [burst] has been caused by water hammer {pressure}." }],
    ["en", "three sentences", { marked: "The [engine] of the old {car} was repaired.\nA [company] in the north makes these {chairs}.\nThe [letter] was found in a wooden {box}." }],
    ["zh", "人物关系", { marked: "[鲁迅]出生于浙江{绍兴}。\n[周建人]是{鲁迅}的弟弟，在上海工作。" }],
  ],
  embed: [
    ["en", "opening hours", { query: "When does the library open?", lines: "The library is open from nine to six.\nBooks may be kept for four weeks.\nThe cafeteria serves lunch at noon.\nOn Sundays the reading room stays closed." }],
    ["zh", "开放时间", { query: "图书馆几点开门？", lines: "图书馆每天上午九点开放。\n图书最多可借四周。\n食堂中午供应午餐。\n阅览室星期日不开放。" }],
  ],
  choice: [
    ["en", "rain", { question: "Why did Anna take her umbrella?", context: "Dark clouds hung over the town when Anna left for work.", choices: "She expected rain.\nIt was very hot.\nShe wanted to swim." }],
    ["zh", "下雨", { question: "小明为什么带伞？", context: "早上出门时，天上乌云密布。", choices: "他觉得要下雨\n天气很热\n他想去游泳" }],
  ],
  replaced: [
    ["en", "one wrong word", { text: "The chef cooked the meal and the guests drove it with great pleasure." }],
    ["en", "nothing wrong", { text: "In the morning the train leaves the station and crosses the river." }],
    ["zh", "错一个字", { text: "该镇位于湖南省南部，人口约三万人，面积二百平方公鱼。" }],
    ["zh", "没有错", { text: "北京是中华人民共和国的首都，也是全国的政治和文化中心。" }],
  ],
  "fill-mask": [
    ["en", "a verb", { masked: "The chef [MASK] the meal." }],
    ["en", "two blanks", { masked: "In the [MASK] the train leaves the [MASK]." }],
    ["zh", "一个字", { masked: "北京是中华人民共和国的首[MASK]。" }],
    ["zh", "两个字", { masked: "他在大学学[MASK]，后来成为一名[MASK]师。" }],
  ],
  generate: [
    ["en", "a beginning", { prompt: "In the early morning the old captain" }],
    ["zh", "一个开头", { prompt: "这座城市位于" }],
  ],
  regression: REVIEWS,
  multilabel: [...QUESTIONS, ...REVIEWS],
};
EXAMPLES.score = EXAMPLES.replaced;
EXAMPLES.correct = EXAMPLES.replaced;

/** Examples that fit a task of a model, those in `language` first. */
export function examplesOf(task, model, language) {
  const found = model.pair && ["classify", "multilabel", "regression"].includes(task) ? PAIRS : EXAMPLES[task] ?? ofLabels(model);
  return [...found].sort((one, other) => (other[0] === language) - (one[0] === language));
}

/** Opinions have two or three labels or stars, topics and kinds of questions more. */
function ofLabels(model) {
  return (model.labels ?? []).length > 5 ? QUESTIONS : REVIEWS;
}
