--- The directories of boxes or of snapshots: each holds a lock and a root, the tree that a box sees as /.
---
--- A directory is something's while it has its id for a name. Before and after it has one of two words in
--- front, by which it is known for rubbish whenever the server was killed.
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"
local sandbox = require "lbox.server.sandbox"

local NEW, DELETED = ".new-", ".deleted-"

---@class lbox.server.Trees
---@field removing table<integer, integer>  uids whose files are not gone yet: how many trees
local Trees = {}
Trees.__index = Trees

-- Started as root, every box gets a host uid of its own from here on.
Trees.FIRST_UID = 524288

--- The trees in the directory `place`.
---@param server table  scope, log, data
---@param place string
---@param what string  what has one
---@return lbox.server.Trees
function Trees.new(server, place, what)
  return setmetatable({ server = server, place = place, what = what, removing = {} }, Trees)
end

function Trees:path(id)
  return self.place .. "/" .. id
end

function Trees:root(id)
  return self:path(id) .. "/root"
end

--- Whether there is anything of this id, also half made or half removed.
function Trees:has(id)
  return posix.lstat(self:path(id)) ~= nil
end

function Trees:has_rest(id)
  return posix.lstat(self:path(NEW .. id)) ~= nil or posix.lstat(self:path(DELETED .. id)) ~= nil
end

local function check(path, ok, why, errno)
  if not ok then
    errors.raise("local", ("cannot make %s: %s"):format(path, why), { errno = errno })
  end
end

-- ------------------------------------------------------------------------------------------ making

--- Makes a new directory. The user of its root, when that is not ours, gets through to the root; nobody
--- else does. It counts from `keep` on.
---@param id string
---@param uid integer|nil
---@return string root  where the root goes, which is not there yet
function Trees:begin(id, uid)
  local dir = self:path(NEW .. id)
  check(dir, posix.mkdir(dir, 0x1c0))
  if uid then
    check(dir, posix.lchown(dir, 0, uid))
    check(dir, posix.chmod(dir, 0x1c8)) -- 0710
  end
  return dir .. "/root"
end

function Trees:keep(id)
  local dir = self:path(id)
  check(dir, posix.rename(self:path(NEW .. id), dir))
end

-- ---------------------------------------------------------------------------------------- removing

local function remove_dir(path)
  local ok, why = posix.rmdir(path)
  if not ok then
    errors.raise("local", ("%s: %s"):format(path, why))
  end
end

--- Removes a root in which nothing runs any more.
local function remove_root(self, dir)
  local root = dir .. "/root"
  local st = posix.lstat(root)
  if st then
    local uid = posix.getuid() == 0 and st.uid or nil
    if uid and uid < Trees.FIRST_UID and not dir:find("/" .. NEW, 1, true) then
      errors.raise("local", ("%s belongs to user %d and to no box"):format(root, uid))
    end
    sandbox.empty_root(root, uid, self.server.data.bin)
    remove_dir(root)
  end
end

local function remove_directory(self, dir)
  -- Of a copy that was cut short (csrc/server/init/copy.h).
  if posix.lstat(dir .. "/root.links") then
    sandbox.empty_root(dir .. "/root.links", nil, self.server.data.bin)
    remove_dir(dir .. "/root.links")
  end
  remove_root(self, dir)
  posix.unlink(dir .. "/lock")
  remove_dir(dir)
end

--- All that beside whatever else goes on; what cannot be removed is removed at the next start. Until it
--- is gone no new box gets its uid.
local function remove_later(self, dir)
  if not posix.lstat(dir) then
    return
  end
  local st = posix.lstat(dir .. "/root")
  local removing = self.removing
  if st then
    removing[st.uid] = (removing[st.uid] or 0) + 1
  end
  self.server.scope:spawn(function()
    local ok, err = pcall(remove_directory, self, dir)
    if not ok then
      self.server.log(("cannot remove %s: %s"):format(dir, tostring(err)))
    elseif st then
      removing[st.uid] = removing[st.uid] > 1 and removing[st.uid] - 1 or nil
    end
  end)
end

--- Removes what was begun and is not kept.
function Trees:abandon(id)
  remove_later(self, self:path(NEW .. id))
end

--- Takes a tree out of use. `remove` removes it.
function Trees:discard(id)
  local dir = self:path(id)
  local ok, why, errno = posix.rename(dir, self:path(DELETED .. id))
  if not ok and errno ~= "ENOENT" then
    errors.raise("local", ("cannot move %s: %s"):format(dir, why))
  end
end

--- Removes the files of a tree that is out of use, and waits for it.
function Trees:remove_files(id)
  remove_root(self, self:path(DELETED .. id))
end

--- Removes a tree that is out of use.
function Trees:remove(id)
  remove_later(self, self:path(DELETED .. id))
end

--- Removes what a killed server left half made or half removed; what is not known is left alone.
---@param is_known fun(id: string): any
function Trees:sweep(is_known)
  for _, name in ipairs(posix.listdir(self.place) or {}) do
    local path = self:path(name)
    local st = posix.lstat(path)
    if not st or st.type ~= "directory" or st.uid ~= posix.getuid() then
      self.server.log(path .. " is not the server's and is left alone")
    elseif name:sub(1, #NEW) == NEW or name:sub(1, #DELETED) == DELETED then
      remove_later(self, path)
    elseif not is_known(name) then
      self.server.log(("%s is of no %s that is known, and is left alone"):format(path, self.what))
    end
  end
end

return Trees
