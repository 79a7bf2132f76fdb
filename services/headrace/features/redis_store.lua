-- The steps of the online store that must decide and write in one go and are too rare for speed to matter.
-- Each is named by a line of its own; redis_store.py loads them by that name.
-- `read` and `apply` are transactions, not scripts: see the head of redis_store.py.

-- script: claim
-- Makes somebody the only owner of a partition.
-- KEYS: the note of the partition, then the `m` hash of each view. ARGV: owner, layout version.
-- Answers {1, {note, {off, wm, tid} of each view}}, or {0, version} when a state has another layout: then nothing was written.
for i = 2, #KEYS do
  local version = redis.call('HGET', KEYS[i], 'v')
  if version and version ~= ARGV[2] then
    return {0, version}
  end
end
local found = {redis.call('GET', KEYS[1]) or ''}
for i = 2, #KEYS do
  redis.call('HSET', KEYS[i], 'own', ARGV[1], 'v', ARGV[2])
  found[i] = redis.call('HMGET', KEYS[i], 'off', 'wm', 'tid')
end
return {1, found}

-- script: note
-- Leaves a note for the next owner of a partition, or takes it away.
-- KEYS: the note, then the `m` hash of each view. ARGV: owner, the note or nothing.
-- Answers 1, or 0 when another owner has claimed the partition.
for i = 2, #KEYS do
  if redis.call('HGET', KEYS[i], 'own') ~= ARGV[1] then
    return 0
  end
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return 1

-- script: reset
-- Drops the states of some views and lets them stand at a start, all or none.
-- KEYS: the `m` hash and the `s` hash of each view in turn. ARGV: owner, layout version, topic id, from which offset on they
-- are whole, then the start of each view.
-- Answers 1, or 0 when another owner has claimed one of them.
for i = 1, #KEYS, 2 do
  if redis.call('HGET', KEYS[i], 'own') ~= ARGV[1] then
    return 0
  end
end
-- Freeing comes first: once a script has written, a full server lets it finish.
redis.call('UNLINK', unpack(KEYS))
for i = 1, #KEYS, 2 do
  redis.call('HSET', KEYS[i], 'own', ARGV[1], 'v', ARGV[2], 'tid', ARGV[3], 'whole', ARGV[4], 'off', ARGV[5 + (i - 1) / 2])
end
return 1

-- script: adopt
-- Gives what was put aside the names of the views it takes the place of, all or none.
-- KEYS: of each view in turn its `m` and `s` hash, then those of what was put aside. ARGV: owner, then the offset each stands at aside.
-- Answers 1, 0 when somebody else owns one of them, or 2 when one does not stand there.
for i = 1, #KEYS, 2 do
  if redis.call('HGET', KEYS[i], 'own') ~= ARGV[1] then
    return 0
  end
end
for i = 1, #KEYS, 4 do
  if redis.call('HGET', KEYS[i + 2], 'off') ~= ARGV[2 + (i - 1) / 4] then
    return 2
  end
end
for i = 1, #KEYS, 4 do
  redis.call('UNLINK', KEYS[i], KEYS[i + 1])
  redis.call('RENAME', KEYS[i + 2], KEYS[i])
  if redis.call('EXISTS', KEYS[i + 3]) == 1 then
    redis.call('RENAME', KEYS[i + 3], KEYS[i + 1])
  end
end
return 1
