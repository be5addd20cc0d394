/*
 * pickle.c - a pickle machine whose values are symbols.
 *
 * A pickle is a program for a stack machine. This one runs it on numbers of nodes: every opcode that would build a
 * value appends a node, every one that would import or call something appends a node that says so. So the worst that
 * a hostile pickle can do is to be long, and that is bounded.
 *
 *     stack   numbers of nodes, a MARK among them where MARK was read
 *     memo    index -> number of a node; an index is never above the number of opcodes that could have filled it
 *
 * Items of lists and dicts are chains of cells, so that appending to a list of any length costs the same; a node that
 * is put into many lists costs a cell in each.
 */
#include "base/tpd.h"

#include "format/pickle.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

enum opcode {
	OP_MARK = '(', OP_STOP = '.', OP_POP = '0', OP_POP_MARK = '1', OP_DUP = '2', OP_BINBYTES = 'B',
	OP_SHORT_BINBYTES = 'C', OP_BINFLOAT = 'G', OP_BININT = 'J', OP_BININT1 = 'K', OP_BININT2 = 'M', OP_NONE = 'N',
	OP_BINPERSID = 'Q', OP_REDUCE = 'R', OP_BINSTRING = 'T', OP_SHORT_BINSTRING = 'U', OP_BINUNICODE = 'X',
	OP_EMPTY_LIST = ']', OP_APPEND = 'a', OP_BUILD = 'b', OP_GLOBAL = 'c', OP_DICT = 'd', OP_APPENDS = 'e',
	OP_BINGET = 'h', OP_LONG_BINGET = 'j', OP_LIST = 'l', OP_OBJ = 'o', OP_BINPUT = 'q', OP_LONG_BINPUT = 'r',
	OP_SETITEM = 's', OP_TUPLE = 't', OP_SETITEMS = 'u', OP_EMPTY_DICT = '}', OP_EMPTY_TUPLE = ')', OP_PROTO = 0x80,
	OP_NEWOBJ = 0x81, OP_TUPLE1 = 0x85, OP_TUPLE2 = 0x86, OP_TUPLE3 = 0x87, OP_NEWTRUE = 0x88, OP_NEWFALSE = 0x89,
	OP_LONG1 = 0x8a, OP_LONG4 = 0x8b, OP_SHORT_BINUNICODE = 0x8c, OP_BINUNICODE8 = 0x8d, OP_BINBYTES8 = 0x8e,
	OP_EMPTY_SET = 0x8f, OP_ADDITEMS = 0x90, OP_FROZENSET = 0x91, OP_NEWOBJ_EX = 0x92, OP_STACK_GLOBAL = 0x93,
	OP_MEMOIZE = 0x94, OP_FRAME = 0x95, OP_BYTEARRAY8 = 0x96
};

#define PROTOCOL_MAX 5

struct machine {
	struct tpd_pickle *pickle;
	struct tpd_rd rd;
	uint32_t *stack, *memo;
	size_t depth, stack_cap, node_cap, cell_cap, memo_cap;
	uint32_t memo_next; /* MEMOIZE's index */
	uint32_t ops, max_ops;
	bool nomem;
};

static bool doubt(struct machine *m, const char *why)
{
	if (!m->pickle->doubt)
		m->pickle->doubt = why;
	return false;
}

static bool grow(struct machine *m, void **array, size_t *cap, size_t wanted, size_t size)
{
	size_t larger = *cap ? *cap : 64;
	void *grown;

	if (wanted <= *cap)
		return true;
	while (larger < wanted)
		larger *= 2;
	grown = reallocarray(*array, larger, size);
	if (!grown) {
		m->nomem = true;
		return false;
	}
	*array = grown;
	*cap = larger;
	return true;
}

/* --- stack, nodes, cells, memo --- */

static bool push(struct machine *m, uint32_t node)
{
	void *array = m->stack;

	if (!grow(m, &array, &m->stack_cap, m->depth + 1, sizeof *m->stack))
		return false;
	m->stack = array;
	m->stack[m->depth++] = node;
	return true;
}

static struct tpd_pickle_node *node_at(const struct machine *m, uint32_t node)
{
	return &m->pickle->nodes[node];
}

/* A value, not a mark. */
static bool pop(struct machine *m, uint32_t *out_node)
{
	if (m->depth == 0 || node_at(m, m->stack[m->depth - 1])->kind == TPD_PICKLE_MARK)
		return doubt(m, "its stack is empty");
	*out_node = m->stack[--m->depth];
	return true;
}

/* The value on top stays. */
static bool top(struct machine *m, uint32_t *out_node)
{
	if (!pop(m, out_node))
		return false;
	m->depth++;
	return true;
}

static bool push_node(struct machine *m, struct tpd_pickle_node node, uint32_t *out_node)
{
	void *array = m->pickle->nodes;

	node.first = node.last = TPD_PICKLE_NOTHING;
	if (m->pickle->node_count >= m->max_ops)
		return doubt(m, "too many values");
	if (!grow(m, &array, &m->node_cap, (size_t)m->pickle->node_count + 1, sizeof node))
		return false;
	m->pickle->nodes = array;
	m->pickle->nodes[m->pickle->node_count] = node;
	if (out_node)
		*out_node = m->pickle->node_count;
	return push(m, m->pickle->node_count++);
}

static bool push_kind(struct machine *m, enum tpd_pickle_kind kind)
{
	return push_node(m, (struct tpd_pickle_node){.kind = (uint8_t)kind}, NULL);
}

static bool push_integer(struct machine *m, enum tpd_pickle_kind kind, int64_t value)
{
	return push_node(m, (struct tpd_pickle_node){.kind = (uint8_t)kind, .u.integer = value}, NULL);
}

static bool add_item(struct machine *m, uint32_t holder, uint32_t item)
{
	struct tpd_pickle *pickle = m->pickle;
	struct tpd_pickle_node *node = node_at(m, holder);
	void *array = pickle->cells;

	m->pickle->steps++;
	if (!grow(m, &array, &m->cell_cap, (size_t)pickle->cell_count + 1, sizeof *pickle->cells))
		return false;
	pickle->cells = array;
	pickle->cells[pickle->cell_count] = (struct tpd_pickle_cell){item, TPD_PICKLE_NOTHING};
	if (node->last == TPD_PICKLE_NOTHING)
		node->first = pickle->cell_count;
	else
		pickle->cells[node->last].next = pickle->cell_count;
	node->last = pickle->cell_count++;
	return true;
}

/*
 * Picklers number what they remember from 0 or 1 on, so no index is above the number of opcodes before it. Without
 * that bound six bytes could have a table of a million entries made.
 */
static bool put_memo(struct machine *m, uint32_t index)
{
	void *array = m->memo;
	size_t old = m->memo_cap;
	uint32_t node;

	if (!top(m, &node))
		return false;
	if (index > m->ops)
		return doubt(m, "a memo index beyond all bounds");
	if (!grow(m, &array, &m->memo_cap, (size_t)index + 1, sizeof *m->memo))
		return false;
	m->memo = array;
	for (size_t i = old; i < m->memo_cap; i++)
		m->memo[i] = TPD_PICKLE_NOTHING;
	m->memo[index] = node;
	return true;
}

static bool get_memo(struct machine *m, uint32_t index)
{
	if (index >= m->memo_cap || m->memo[index] == TPD_PICKLE_NOTHING)
		return doubt(m, "it uses what it did not remember");
	return push(m, m->memo[index]);
}

/* --- opcodes that take what lies above a mark --- */

/* Where the last mark is. */
static bool find_mark(struct machine *m, size_t *out_at)
{
	size_t at = m->depth;

	while (at > 0 && node_at(m, m->stack[at - 1])->kind != TPD_PICKLE_MARK) {
		at--;
		m->pickle->steps++;
	}
	if (at == 0)
		return doubt(m, "no mark");
	*out_at = at - 1;
	return true;
}

/* A new node of what lies at stack[from] and above, in place of it and of the mark at stack[at]. */
static bool gather(struct machine *m, enum tpd_pickle_kind kind, size_t at, size_t from)
{
	size_t end = m->depth;
	uint32_t holder;

	if (kind == TPD_PICKLE_DICT && (end - from) % 2 != 0)
		return doubt(m, "a key without its value");
	if (!push_node(m, (struct tpd_pickle_node){.kind = (uint8_t)kind}, &holder))
		return false;
	for (size_t i = from; i < end; i++) {
		if (!add_item(m, holder, m->stack[i]))
			return false;
	}
	m->depth = at;
	return push(m, holder);
}

static bool gather_marked(struct machine *m, enum tpd_pickle_kind kind)
{
	size_t at = 0;

	return find_mark(m, &at) && gather(m, kind, at, at + 1);
}

/* Are the top `count` all values, not marks? */
static bool has_values(const struct machine *m, size_t count)
{
	if (m->depth < count)
		return false;
	for (size_t i = m->depth - count; i < m->depth; i++) {
		if (node_at(m, m->stack[i])->kind == TPD_PICKLE_MARK)
			return false;
	}
	return true;
}

/* TUPLE1..3: no mark. */
static bool gather_top(struct machine *m, size_t count)
{
	if (!has_values(m, count))
		return doubt(m, "its stack is empty");
	return gather(m, TPD_PICKLE_TUPLE, m->depth - count, m->depth - count);
}

/* May items be added to it afterwards: in pairs, or one by one? */
static bool takes_items(const struct tpd_pickle_node *node, bool pairs)
{
	if (node->kind == TPD_PICKLE_CALL)
		return node->first == TPD_PICKLE_NOTHING || node->pairs == pairs;
	return pairs ? node->kind == TPD_PICKLE_DICT : node->kind == TPD_PICKLE_LIST || node->kind == TPD_PICKLE_SET;
}

/* Items [from, depth) into the value that lies at stack[holder_at]; what is above that goes. */
static bool add_items(struct machine *m, size_t holder_at, size_t from, bool pairs)
{
	uint32_t holder = m->stack[holder_at];
	struct tpd_pickle_node *node = node_at(m, holder);

	if (!takes_items(node, pairs))
		return doubt(m, "items for what takes none");
	if (pairs && (m->depth - from) % 2 != 0)
		return doubt(m, "a key without its value");
	if (m->depth > from)
		node->pairs = pairs;
	for (size_t i = from; i < m->depth; i++) {
		if (!add_item(m, holder, m->stack[i]))
			return false;
	}
	m->depth = holder_at + 1;
	return true;
}

static bool add_marked(struct machine *m, bool pairs)
{
	size_t at = 0;

	if (!find_mark(m, &at))
		return false;
	if (at == 0 || node_at(m, m->stack[at - 1])->kind == TPD_PICKLE_MARK)
		return doubt(m, "its stack is empty");
	return add_items(m, at - 1, at + 1, pairs);
}

static bool add_top(struct machine *m, size_t count)
{
	if (!has_values(m, count + 1))
		return doubt(m, "its stack is empty");
	return add_items(m, m->depth - count - 1, m->depth - count, count == 2);
}

/* --- opcodes with an argument --- */

static bool push_text(struct machine *m, enum tpd_pickle_kind kind, uint64_t len)
{
	const uint8_t *at = tpd_rd_bytes(&m->rd, len);

	if (!at)
		return doubt(m, "it ends too early");
	return push_node(m,
			 (struct tpd_pickle_node){.kind = (uint8_t)kind, .u.text = {(const char *)at, (uint32_t)len}},
			 NULL);
}

/* Two's complement, little-endian, of any length. */
static bool push_long(struct machine *m, uint64_t len)
{
	const uint8_t *at = tpd_rd_bytes(&m->rd, len);
	uint64_t value = 0;

	if (!at)
		return doubt(m, "it ends too early");
	if (len > 8)
		return push_kind(m, TPD_PICKLE_OTHER);
	if (len > 0 && at[len - 1] & 0x80)
		value = UINT64_MAX;
	for (uint64_t i = 0; i < len; i++)
		value = (value & ~((uint64_t)0xff << 8 * i)) | (uint64_t)at[i] << 8 * i;
	return push_integer(m, TPD_PICKLE_INT, (int64_t)value);
}

/* A line without its end; at most 4096 bytes. */
static bool push_line(struct machine *m)
{
	const uint8_t *end = memchr(m->rd.p, '\n', TPD_MIN(tpd_rd_left(&m->rd), (size_t)4096));
	uint64_t len;

	if (!end)
		return doubt(m, "a name without an end");
	len = (uint64_t)(end - m->rd.p);
	if (!push_text(m, TPD_PICKLE_STRING, len))
		return false;
	tpd_rd_u8(&m->rd);
	return true;
}

/* The two strings on top become a GLOBAL. */
static bool push_global(struct machine *m)
{
	uint32_t module, name;

	if (!pop(m, &name) || !pop(m, &module))
		return false;
	if (node_at(m, module)->kind != TPD_PICKLE_STRING || node_at(m, name)->kind != TPD_PICKLE_STRING)
		return doubt(m, "a name that is none");
	return push_node(m, (struct tpd_pickle_node){.kind = TPD_PICKLE_GLOBAL, .u.global = {module, name}}, NULL);
}

static bool push_call(struct machine *m, unsigned arguments)
{
	uint32_t tuple, callee, keywords;

	if (arguments == 2 && !pop(m, &keywords)) /* NEWOBJ_EX: the keywords are not kept */
		return false;
	if (!pop(m, &tuple) || !pop(m, &callee))
		return false;
	return push_node(
		m, (struct tpd_pickle_node){.kind = TPD_PICKLE_CALL, .u.call = {callee, tuple, TPD_PICKLE_NOTHING}},
		NULL);
}

/* OBJ: a mark, the class, its arguments. */
static bool push_object(struct machine *m)
{
	size_t at = 0;
	uint32_t callee;

	if (!find_mark(m, &at))
		return false;
	if (m->depth < at + 2)
		return doubt(m, "a call of nothing");
	callee = m->stack[at + 1];
	m->stack[at] = callee;
	return gather(m, TPD_PICKLE_TUPLE, at + 1, at + 2) && push_call(m, 1);
}

static bool build(struct machine *m)
{
	uint32_t state, object;

	if (!pop(m, &state) || !top(m, &object))
		return false;
	if (node_at(m, object)->kind == TPD_PICKLE_CALL)
		node_at(m, object)->u.call.state = state;
	return true; /* what else could have a state of its own has none that interests us */
}

static bool pop_any(struct machine *m)
{
	if (m->depth == 0)
		return doubt(m, "its stack is empty");
	m->depth--;
	return true;
}

static bool pop_mark(struct machine *m)
{
	size_t at = 0;

	if (!find_mark(m, &at))
		return false;
	m->depth = at;
	return true;
}

static bool duplicate(struct machine *m)
{
	uint32_t node;

	return top(m, &node) && push(m, node);
}

static bool persistent(struct machine *m)
{
	uint32_t id;

	return pop(m, &id) && push_node(m, (struct tpd_pickle_node){.kind = TPD_PICKLE_PERSISTENT, .u.id = id}, NULL);
}

static bool protocol(struct machine *m)
{
	uint8_t version = tpd_rd_u8(&m->rd);

	return version <= PROTOCOL_MAX || doubt(m, "an unknown protocol");
}

/* A frame says how much belongs together; it must at least be there. */
static bool frame(struct machine *m)
{
	return tpd_rd_u64(&m->rd) <= tpd_rd_left(&m->rd) || doubt(m, "it ends too early");
}

/* The only field of a pickle that lies with its high byte first. */
static bool floating(struct machine *m)
{
	uint64_t bits = __builtin_bswap64(tpd_rd_u64(&m->rd));
	struct tpd_pickle_node node = {.kind = TPD_PICKLE_FLOAT};

	memcpy(&node.u.real, &bits, sizeof bits);
	return push_node(m, node, NULL);
}

static bool step(struct machine *m, uint8_t op)
{
	struct tpd_rd *rd = &m->rd;

	switch (op) {
	case OP_PROTO: return protocol(m);
	case OP_FRAME: return frame(m);
	case OP_MARK: return push_kind(m, TPD_PICKLE_MARK);
	case OP_POP: return pop_any(m);
	case OP_POP_MARK: return pop_mark(m);
	case OP_DUP: return duplicate(m);
	case OP_NONE: return push_kind(m, TPD_PICKLE_NONE);
	case OP_NEWTRUE: return push_integer(m, TPD_PICKLE_BOOL, 1);
	case OP_NEWFALSE: return push_integer(m, TPD_PICKLE_BOOL, 0);
	case OP_BININT: return push_integer(m, TPD_PICKLE_INT, (int32_t)tpd_rd_u32(rd));
	case OP_BININT1: return push_integer(m, TPD_PICKLE_INT, tpd_rd_u8(rd));
	case OP_BININT2: return push_integer(m, TPD_PICKLE_INT, tpd_rd_u16(rd));
	case OP_LONG1: return push_long(m, tpd_rd_u8(rd));
	case OP_LONG4: return push_long(m, tpd_rd_u32(rd));
	case OP_BINFLOAT: return floating(m);
	case OP_BINUNICODE: return push_text(m, TPD_PICKLE_STRING, tpd_rd_u32(rd));
	case OP_SHORT_BINUNICODE: return push_text(m, TPD_PICKLE_STRING, tpd_rd_u8(rd));
	case OP_BINUNICODE8: return push_text(m, TPD_PICKLE_STRING, tpd_rd_u64(rd));
	case OP_BINSTRING: return push_text(m, TPD_PICKLE_STRING, tpd_rd_u32(rd));
	case OP_SHORT_BINSTRING: return push_text(m, TPD_PICKLE_STRING, tpd_rd_u8(rd));
	case OP_BINBYTES: return push_text(m, TPD_PICKLE_BYTES, tpd_rd_u32(rd));
	case OP_SHORT_BINBYTES: return push_text(m, TPD_PICKLE_BYTES, tpd_rd_u8(rd));
	case OP_BINBYTES8:
	case OP_BYTEARRAY8: return push_text(m, TPD_PICKLE_BYTES, tpd_rd_u64(rd));
	case OP_EMPTY_TUPLE: return push_kind(m, TPD_PICKLE_TUPLE);
	case OP_EMPTY_LIST: return push_kind(m, TPD_PICKLE_LIST);
	case OP_EMPTY_DICT: return push_kind(m, TPD_PICKLE_DICT);
	case OP_EMPTY_SET: return push_kind(m, TPD_PICKLE_SET);
	case OP_TUPLE1: return gather_top(m, 1);
	case OP_TUPLE2: return gather_top(m, 2);
	case OP_TUPLE3: return gather_top(m, 3);
	case OP_TUPLE: return gather_marked(m, TPD_PICKLE_TUPLE);
	case OP_LIST: return gather_marked(m, TPD_PICKLE_LIST);
	case OP_DICT: return gather_marked(m, TPD_PICKLE_DICT);
	case OP_FROZENSET: return gather_marked(m, TPD_PICKLE_SET);
	case OP_APPEND: return add_top(m, 1);
	case OP_SETITEM: return add_top(m, 2);
	case OP_APPENDS:
	case OP_ADDITEMS: return add_marked(m, false);
	case OP_SETITEMS: return add_marked(m, true);
	case OP_GLOBAL: return push_line(m) && push_line(m) && push_global(m);
	case OP_STACK_GLOBAL: return push_global(m);
	case OP_REDUCE:
	case OP_NEWOBJ: return push_call(m, 1);
	case OP_NEWOBJ_EX: return push_call(m, 2);
	case OP_OBJ: return push_object(m);
	case OP_BUILD: return build(m);
	case OP_BINPERSID: return persistent(m);
	case OP_BINPUT: return put_memo(m, tpd_rd_u8(rd));
	case OP_LONG_BINPUT: return put_memo(m, tpd_rd_u32(rd));
	case OP_MEMOIZE: return put_memo(m, m->memo_next++);
	case OP_BINGET: return get_memo(m, tpd_rd_u8(rd));
	case OP_LONG_BINGET: return get_memo(m, tpd_rd_u32(rd));
	default: return doubt(m, "an unknown opcode");
	}
}

static bool run(struct machine *m)
{
	uint32_t root = 0;
	uint8_t op;

	while ((op = tpd_rd_u8(&m->rd)) != OP_STOP || !tpd_rd_ok(&m->rd)) {
		if (!tpd_rd_ok(&m->rd))
			return doubt(m, "it ends too early");
		if (++m->ops > m->max_ops)
			return doubt(m, "too many opcodes");
		if (!step(m, op))
			return false;
		if (!tpd_rd_ok(&m->rd))
			return doubt(m, "it ends too early");
	}
	if (!pop(m, &root))
		return false;
	if (m->depth > 0)
		return doubt(m, "more than one value");
	m->pickle->root = root;
	return true;
}

enum tpd_status tpd_pickle_read(const void *bytes, size_t len, uint32_t max_ops, struct tpd_pickle *out_pickle,
				struct tpd_err *err)
{
	struct tpd_pickle pickle = {.root = TPD_PICKLE_NOTHING};
	struct machine m = {
		.pickle = &pickle,
		.rd = tpd_rd_make(bytes, TPD_MIN(len, (size_t)TPD_PICKLE_MAX_BYTES)),
		.max_ops = max_ops,
	};
	bool good = run(&m);

	pickle.steps += m.ops;
	pickle.length = (size_t)(m.rd.p - (const uint8_t *)bytes);
	free(m.stack);
	free(m.memo);
	if (!good) {
		const char *reason = pickle.doubt;
		uint64_t steps = pickle.steps;

		tpd_pickle_release(&pickle);
		pickle.doubt = reason;
		pickle.steps = steps;
	}
	if (m.nomem)
		return tpd_fail_nomem(err);
	*out_pickle = pickle;
	return TPD_OK;
}

void tpd_pickle_release(struct tpd_pickle *pickle)
{
	free(pickle->nodes);
	free(pickle->cells);
	*pickle = (struct tpd_pickle){.root = TPD_PICKLE_NOTHING};
}

/* --- questions --- */

enum tpd_pickle_kind tpd_pickle_kind_of(const struct tpd_pickle *pickle, uint32_t node)
{
	return node == TPD_PICKLE_NOTHING ? TPD_PICKLE_NONE : (enum tpd_pickle_kind)pickle->nodes[node].kind;
}

uint32_t tpd_pickle_item(const struct tpd_pickle *pickle, uint32_t node, unsigned n)
{
	uint32_t cell = node == TPD_PICKLE_NOTHING ? TPD_PICKLE_NOTHING : pickle->nodes[node].first;

	while (cell != TPD_PICKLE_NOTHING && n-- > 0)
		cell = pickle->cells[cell].next;
	return cell == TPD_PICKLE_NOTHING ? TPD_PICKLE_NOTHING : pickle->cells[cell].node;
}

bool tpd_pickle_is_string(const struct tpd_pickle *pickle, uint32_t node, const char *text)
{
	const struct tpd_pickle_node *n = node == TPD_PICKLE_NOTHING ? NULL : &pickle->nodes[node];

	return n && n->kind == TPD_PICKLE_STRING && n->u.text.length == strlen(text) &&
	       memcmp(n->u.text.at, text, n->u.text.length) == 0;
}

bool tpd_pickle_is_global(const struct tpd_pickle *pickle, uint32_t node, const char *module, const char *name)
{
	return tpd_pickle_kind_of(pickle, node) == TPD_PICKLE_GLOBAL &&
	       tpd_pickle_is_string(pickle, pickle->nodes[node].u.global.module, module) &&
	       tpd_pickle_is_string(pickle, pickle->nodes[node].u.global.name, name);
}

bool tpd_pickle_u64(const struct tpd_pickle *pickle, uint32_t node, uint64_t *out_value)
{
	if (tpd_pickle_kind_of(pickle, node) != TPD_PICKLE_INT || pickle->nodes[node].u.integer < 0)
		return false;
	*out_value = (uint64_t)pickle->nodes[node].u.integer;
	return true;
}

bool tpd_pickle_sizes(const struct tpd_pickle *pickle, uint32_t node, unsigned max, unsigned *out_count, uint64_t *out)
{
	unsigned count = 0;

	if (tpd_pickle_kind_of(pickle, node) == TPD_PICKLE_CALL)
		node = tpd_pickle_item(pickle, pickle->nodes[node].u.call.arguments, 0);
	if (tpd_pickle_kind_of(pickle, node) != TPD_PICKLE_TUPLE)
		return false;
	for (uint32_t cell = pickle->nodes[node].first; cell != TPD_PICKLE_NOTHING; cell = pickle->cells[cell].next) {
		if (count == max || !tpd_pickle_u64(pickle, pickle->cells[cell].node, &out[count]))
			return false;
		count++;
	}
	*out_count = count;
	return true;
}

static uint32_t find_key(const struct tpd_pickle *pickle, uint32_t dict, const char *key, uint32_t most)
{
	uint32_t cell = TPD_PICKLE_NOTHING;

	if (tpd_pickle_kind_of(pickle, dict) == TPD_PICKLE_DICT ||
	    (tpd_pickle_kind_of(pickle, dict) == TPD_PICKLE_CALL && pickle->nodes[dict].pairs))
		cell = pickle->nodes[dict].first;
	while (cell != TPD_PICKLE_NOTHING && most-- > 0) {
		uint32_t value = pickle->cells[cell].next; /* pairs are never torn */

		if (tpd_pickle_is_string(pickle, pickle->cells[cell].node, key))
			return pickle->cells[value].node;
		cell = pickle->cells[value].next;
	}
	return TPD_PICKLE_NOTHING;
}

uint32_t tpd_pickle_lookup(const struct tpd_pickle *pickle, uint32_t dict, const char *key)
{
	return find_key(pickle, dict, key, UINT32_MAX);
}

uint32_t tpd_pickle_field(const struct tpd_pickle *pickle, uint32_t object, const char *key)
{
	if (tpd_pickle_kind_of(pickle, object) != TPD_PICKLE_CALL)
		return TPD_PICKLE_NOTHING;
	return find_key(pickle, pickle->nodes[object].u.call.state, key, TPD_PICKLE_MAX_FIELDS);
}
