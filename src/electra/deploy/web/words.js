// What the page says, in English and Chinese. `word(key, blanks)` fills {blanks}; numbers are written as the language does.

const LANGUAGE = "electra-language";

const WORDS = {
  en: {
    subtitle: "models on this server", skip: "Skip to the input", languages: "Language",
    privacy: "Texts go to this server and nowhere else. The page keeps none of them.", api: "API description (OpenAPI)",
    key: "API key", "key-set": "API key ✓", "key-label": "API key of this server", "key-save": "Use",
    "key-hint": "Kept in this tab until you close it, and sent to this server only. Empty removes it.",
    models: "Model", modes: "Task", input: "Input", result: "Result", examples: "Examples",
    run: "Run", stop: "Stop", link: "Copy link", "link-done": "The link to this input is copied; it is in the address bar, too.",
    "link-shown": "The link to this input is in the address bar.", optional: "optional", loading: "Loading the models …",
    nothing: "Nothing yet: type a text or take an example, then press Run.", running: "Working …", writing: "Writing …",
    stopped: "Stopped.", retry: "The server is full; asking again in {seconds} s (attempt {attempt} of {attempts}) …",
    characters: "{count} characters", "not-ready": "not ready", restored: "Input restored from the link. Nothing was sent yet.",
    server: "{time} on the server", whole: "{time} in all", first: "first words after {time}",
    "cut-none": "nothing cut", "cut-some": "⚠ {count} tokens did not fit and were not read",
    request: "The request and the reply", copy: "Copy", copied: "Copied", numbers: "{count} numbers", mend: "What helps: {mend}", place: "Place: {path}",

    "task-classify": "Classification", "task-multilabel": "Several labels", "task-regression": "A number", "task-tag": "Entities",
    "task-span": "Answer in a text", "task-relation": "Relations", "task-embed": "Similarity", "task-choice": "Multiple choice",
    "task-replaced": "Replaced tokens", "task-fill-mask": "Fill the blanks", "task-score": "How likely",
    "task-correct": "Correction", "task-generate": "Writing",
    "about-classify": "Which label a text has, and how sure the model is.",
    "about-multilabel": "Every label is a question of its own; those above the threshold are given.",
    "about-regression": "One number, in the units of the training data.",
    "about-tag": "The parts of the text that have a label.",
    "about-span": "The part of the text that answers the question.",
    "about-relation": "What holds between two marked parts of a sentence. Several sentences make a graph.",
    "about-embed": "Texts in the order of how close their meaning is to the first one (cosine).",
    "about-choice": "The best of several answers.",
    "about-replaced": "How probable the discriminator finds it that each token is not the original. Choose one to see what the generator would put there.",
    "about-fill-mask": "What the generator puts into each [MASK].",
    "about-score": "How likely each token is in its place; odd ones are shaded.",
    "about-correct": "Words that do not fit are found by the discriminator and replaced by the generator's.",
    "about-generate": "The model writes on; every piece is shown as soon as it is there.",
    "about-other": "A task of an installed package: its reply is shown as it is.",

    "field-text": "Text", "field-pair": "Second text", "field-question": "Question", "field-context": "Text to look in",
    "field-choices": "Answers to choose from, one a line", "field-query": "Text to compare with", "field-lines": "Texts, one a line",
    "field-marked": "Sentences, one a line: [head] and {tail} in brackets", "field-prompt": "Beginning, or source text",
    "field-masked": "Text with [MASK] where something is missing",
    "tool-head": "Mark as [head]", "tool-tail": "Mark as {tail}", "tool-mask": "Insert [MASK]",
    settings: "Settings", "set-max_new_tokens": "Tokens at most", "set-do_sample": "Sample (otherwise the likeliest)",
    "set-temperature": "Temperature", "set-top_p": "Top p", "set-seed": "Seed",

    "say-label": "{label}: {score}", "say-none": "No label reaches the threshold.", "say-number": "{number}",
    "say-entities": "Found: {count}", "no-entities": "Nothing found.", "say-answer": "“{answer}” ({score})",
    "no-answer": "The text does not answer it ({score}).", "n-best": "Candidates",
    "say-relations": "Relations: {count}", "graph-alt": "Graph of the relations ({count}); the list below says the same.",
    "say-ranking": "Closest: “{text}” ({score})", "say-choice": "{label} ({score})",
    "say-replaced": "Mean probability of “replaced”: {score}", "say-score": "Score {score} ({method}, {reduce})",
    "scale-low": "fits", "scale-high": "replaced", "scale-odd": "odd", "token-says": "{token}: {score}",
    "token-keys": "Choose a token, with the mouse or with arrow keys and Enter.",
    "no-generator": "This model has no generator, so there are no proposals.",
    proposals: "Instead of “{token}” ({score})", asking: "Asking the generator …", undo: "Undo", close: "Close",
    changed: "{old} → {new}: {before} → {after}; mean {mean} → {now}", same: "the present one", trail: "Changes",
    "say-masks": "Blanks: {count}", "no-masks": "There is no [MASK] in the text.", blank: "Blank {number}",
    "say-edits": "Corrections: {count}", "no-edits": "Nothing to correct.", "edit-says": "{old} → {new}: suspicion {before} → {after}",
    take: "Take over", "say-written": "Written: {count} characters", "say-other": "Done.",
    "ended-end": "ended by itself", "ended-length": "stopped at the limit of tokens", "ended-stop": "stopped at a given text",
  },
  zh: {
    subtitle: "本服务器上的模型", skip: "跳到输入区", languages: "语言",
    privacy: "文本只发送到本服务器，页面不保存任何文本。", api: "接口说明（OpenAPI）",
    key: "API 密钥", "key-set": "API 密钥 ✓", "key-label": "本服务器的 API 密钥", "key-save": "使用",
    "key-hint": "只保存在当前标签页中，关闭即消失；只发送给本服务器。留空则删除。",
    models: "模型", modes: "任务", input: "输入", result: "结果", examples: "示例",
    run: "运行", stop: "停止", link: "复制链接", "link-done": "此输入的链接已复制，地址栏中也有。",
    "link-shown": "此输入的链接已在地址栏中。", optional: "可不填", loading: "正在读取模型列表……",
    nothing: "还没有结果：输入文本或选一个示例，然后点“运行”。", running: "计算中……", writing: "生成中……",
    stopped: "已停止。", retry: "服务器繁忙，{seconds} 秒后重试（第 {attempt} 次，共 {attempts} 次）……",
    characters: "{count} 个字符", "not-ready": "未就绪", restored: "已从链接恢复输入，尚未发送任何内容。",
    server: "服务器用时 {time}", whole: "共 {time}", first: "首段用时 {time}",
    "cut-none": "未截断", "cut-some": "⚠ 有 {count} 个词元超出长度，未被读取",
    request: "请求与回复", copy: "复制", copied: "已复制", numbers: "{count} 个数", mend: "解决办法：{mend}", place: "位置：{path}",

    "task-classify": "文本分类", "task-multilabel": "多标签", "task-regression": "数值", "task-tag": "实体",
    "task-span": "阅读理解", "task-relation": "关系抽取", "task-embed": "语义相似", "task-choice": "选择题",
    "task-replaced": "替换检测", "task-fill-mask": "填空", "task-score": "通顺程度",
    "task-correct": "纠错", "task-generate": "生成",
    "about-classify": "文本属于哪个标签，以及模型的把握。",
    "about-multilabel": "每个标签单独判断，达到阈值的即给出。",
    "about-regression": "一个数值，单位与训练数据相同。",
    "about-tag": "文本中带有标签的片段。",
    "about-span": "文本中回答该问题的片段。",
    "about-relation": "句子中两个标记片段之间的关系；多句组成一张图。",
    "about-embed": "按与第一段文本的语义接近程度（余弦）排序。",
    "about-choice": "从若干答案中选出最好的一个。",
    "about-replaced": "判别器认为每个词元不是原文的概率。选中一个词元，可看生成器会填什么。",
    "about-fill-mask": "生成器在每个 [MASK] 处填什么。",
    "about-score": "每个词元在其位置上的可能程度，可疑的会着色。",
    "about-correct": "判别器找出不合适的词，由生成器替换。",
    "about-generate": "模型接着写，每写出一段立即显示。",
    "about-other": "由已安装的扩展包提供的任务，回复按原样显示。",

    "field-text": "文本", "field-pair": "第二段文本", "field-question": "问题", "field-context": "待查找的文本",
    "field-choices": "备选答案，每行一个", "field-query": "比较的基准文本", "field-lines": "文本，每行一条",
    "field-marked": "句子，每行一句：[头实体] 与 {尾实体} 用括号标出", "field-prompt": "开头或原文",
    "field-masked": "文本，缺失处写 [MASK]",
    "tool-head": "标为 [头实体]", "tool-tail": "标为 {尾实体}", "tool-mask": "插入 [MASK]",
    settings: "设置", "set-max_new_tokens": "最多词元数", "set-do_sample": "随机采样（否则取最可能的）",
    "set-temperature": "温度", "set-top_p": "Top p", "set-seed": "随机种子",

    "say-label": "{label}：{score}", "say-none": "没有标签达到阈值。", "say-number": "{number}",
    "say-entities": "找到 {count} 个", "no-entities": "没有找到。", "say-answer": "“{answer}”（{score}）",
    "no-answer": "文本中没有答案（{score}）。", "n-best": "候选答案",
    "say-relations": "{count} 个关系", "graph-alt": "{count} 个关系的图，下方列表内容相同。",
    "say-ranking": "最接近：“{text}”（{score}）", "say-choice": "{label}（{score}）",
    "say-replaced": "“被替换”的平均概率：{score}", "say-score": "得分 {score}（{method}，{reduce}）",
    "scale-low": "合适", "scale-high": "被替换", "scale-odd": "可疑", "token-says": "{token}：{score}",
    "token-keys": "用鼠标，或用方向键和回车，选择一个词元。",
    "no-generator": "此模型没有生成器，因此没有候选。",
    proposals: "替换“{token}”（{score}）", asking: "正在询问生成器……", undo: "撤销", close: "关闭",
    changed: "{old} → {new}：{before} → {after}；平均 {mean} → {now}", same: "当前词元", trail: "改动",
    "say-masks": "{count} 处空白", "no-masks": "文本中没有 [MASK]。", blank: "空白 {number}",
    "say-edits": "{count} 处修改", "no-edits": "没有需要修改的地方。", "edit-says": "{old} → {new}：可疑程度 {before} → {after}",
    take: "采用", "say-written": "已生成 {count} 个字符", "say-other": "完成。",
    "ended-end": "自然结束", "ended-length": "到达词元上限", "ended-stop": "遇到指定文本而停止",
  },
};

// The troubles that the page itself finds, docs/errors.md: what is wrong, and what helps.
const TROUBLES = {
  en: {
    "E-C770": ["“{field}” is empty", "type a text or take an example"],
    "E-C771": ["the input has {count} characters, more than {limit}", "shorten it, or use electra predict for whole files"],
    "E-C772": ["“{field}” has {count} lines, not between {least} and {limit}", "add or remove lines"],
    "E-C773": ["the server cannot be reached", "see whether it still runs, then try again"],
    "E-C774": ["the reply broke off or is not what this page understands", "try again; if it stays, see the server's log"],
    "E-C775": ["line {line} has no [head] and {tail}", "put one part in square and one in curly brackets"],
    "E-C776": ["the link names {name}, which is not loaded here", "choose another model, or load it: electra serve DIR"],
    "E-C777": ["the key has characters that no key has", "copy it again"],
  },
  zh: {
    "E-C770": ["“{field}”为空", "请输入文本或选一个示例"],
    "E-C771": ["输入有 {count} 个字符，超过 {limit} 个", "请缩短；整个文件请用 electra predict"],
    "E-C772": ["“{field}”有 {count} 行，应在 {least} 到 {limit} 行之间", "请增减行数"],
    "E-C773": ["无法连接服务器", "请确认服务器仍在运行，然后重试"],
    "E-C774": ["回复中断，或不是本页面能理解的内容", "请重试；如仍出现，请查看服务器日志"],
    "E-C775": ["第 {line} 行缺少 [头实体] 与 {尾实体}", "用方括号和花括号各标出一个片段"],
    "E-C776": ["链接中的 {name} 没有在此加载", "请选择其他模型，或加载它：electra serve DIR"],
    "E-C777": ["密钥中有不允许的字符", "请重新复制"],
  },
};

export const LANGUAGES = { en: "English", zh: "中文" };

let language = first();

function first() {
  try {
    const kept = localStorage.getItem(LANGUAGE);
    if (kept in WORDS) return kept;
  } catch {
    // storage is switched off
  }
  const wanted = navigator.languages.map((name) => name.slice(0, 2).toLowerCase()).find((name) => name in WORDS);
  return wanted ?? "en";
}

export function currentLanguage() {
  return language;
}

export function chooseLanguage(name) {
  language = name;
  try {
    localStorage.setItem(LANGUAGE, name);
  } catch {
    // until the tab is closed, then
  }
}

function fill(text, blanks) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in blanks ? String(blanks[name]) : whole));
}

/** What the page says for a key. */
export function word(key, blanks = {}) {
  return fill(WORDS[language][key], blanks);
}

/** The name of a task; of one that is not built in, its own. */
export function taskName(task) {
  return WORDS[language][`task-${task}`] ?? task;
}

/** Message and mend of a trouble. */
export function explained(trouble) {
  const own = TROUBLES[language][trouble.code];
  return own && !trouble.said
    ? { message: fill(own[0], trouble.details), mend: fill(own[1], trouble.details) }
    : { message: trouble.said, mend: trouble.mend };
}

export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share < 1 && share > 0.999) return "> 99.9 %";
  return `${(share * 100).toFixed(1)} %`;
}

export function number(value, digits = 3) {
  return value.toLocaleString(language, { maximumFractionDigits: digits });
}

export function time(milliseconds) {
  if (milliseconds >= 1000) return `${number(milliseconds / 1000, 1)} s`;
  return `${number(milliseconds, milliseconds < 10 ? 1 : 0)} ms`;
}

/** The keys that one language has and another lacks; a test asks for it. */
export function missing() {
  const keys = (tables) => new Set(Object.values(tables).flatMap((table) => Object.keys(table)));
  return [WORDS, TROUBLES].flatMap((tables) =>
    Object.entries(tables).flatMap(([name, table]) => [...keys(tables)].filter((key) => !(key in table)).map((key) => `${name} ${key}`)));
}
