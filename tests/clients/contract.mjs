// What @supabase/postgrest-js finds, over the fixtures of tests/tests/rest/. URL and token come by environment.
import assert from 'node:assert/strict'
import { PostgrestClient } from '@supabase/postgrest-js'

const { PG_SHELL_REST_URL: url, PG_SHELL_TOKEN: token } = process.env
const client = new PostgrestClient(url, { headers: { Authorization: `Bearer ${token}` } })
const data = async (call) => {
  const answer = await call
  assert.equal(answer.error, null, JSON.stringify(answer))
  return answer.data
}

assert.equal(await data(client.rpc('rest_add', { a: 1, b: 5 })), 6)
assert.equal(await data(client.rpc('rest_add', { a: 1 }, { get: true })), 3)
assert.deepEqual(await data(client.rpc('rest_array', { v: [3, 4] })), 4)
assert.deepEqual(await data(client.rpc('rest_json', { v: { k: [1, 'x'] } })), { k: [1, 'x'] })
assert.deepEqual(await data(client.rpc('rest_pair')), { id: 7, name: 'seven' })
assert.equal((await client.rpc('rest_nothing')).status, 204)

const rows = (options) => client.rpc('rest_rows', { n: 5 }, { get: true, ...options })
assert.deepEqual(await data(rows().select('id').gt('id', 3).order('id', { ascending: false })), [{ id: 5 }, { id: 4 }])
assert.deepEqual(await data(rows().select('no:id').in('id', [1, 3])), [{ no: 1 }, { no: 3 }])
assert.deepEqual(await data(rows().select('id').contains('tags', ['t2'])), [{ id: 2 }])
assert.deepEqual(await data(rows().select('id').like('name', '%5')), [{ id: 5 }])
assert.deepEqual(await data(rows().select('id').not('odd', 'is', true)), [{ id: 2 }, { id: 4 }])
assert.deepEqual(await data(rows().select('id').eq('id', 2).single()), { id: 2 })
assert.equal(await data(rows().select('id').eq('id', 99).maybeSingle()), null)

const counted = await rows({ count: 'exact' }).select('id').range(1, 2)
assert.deepEqual([counted.status, counted.count, counted.data], [206, 5, [{ id: 2 }, { id: 3 }]])
const head = await client.rpc('rest_rows', { n: 5 }, { head: true, count: 'exact' })
assert.deepEqual([head.status, head.count, head.data], [200, 5, null])

const code = async (call) => (await call).error.code
assert.equal(await code(client.rpc('rest_nope')), 'PGRST202')
assert.equal(await code(rows().select('id').single()), 'PGRST116')
assert.equal(await code(client.rpc('rest_write', { note: 'js' }, { get: true })), '25006')
const raised = (await client.rpc('rest_raise', { code: 'PT418' })).error
assert.deepEqual([raised.message, raised.details, raised.hint], ['raised', 'the detail', 'the hint'])
const anonymous = await new PostgrestClient(url).rpc('list_sessions')
assert.deepEqual([anonymous.status, anonymous.error.code], [401, '42501'])
console.log('ok')
