// THROWAWAY: a tiny file system in memory with the API of Volume, for trying FuseServer and Command before the real one is there.
// TREERING_STUB_BLOCK=1 makes operations block and reads need I/O at random.

import Glibc
import Synchronization

struct PageMiss: Error, Sendable {}
struct Attempt: Sendable {}
enum XattrValue { case bytes([UInt8]), plan(ReadPlan) }
final class ReadPlan: @unchecked Sendable {
    let memory: AlignedBuffer
    let byteCount: Int
    var needsIO: Bool
    init(_ bytes: ArraySlice<UInt8>, _ io: Bool) {
        memory = AlignedBuffer(byteCount: bytes.count)
        byteCount = bytes.count
        needsIO = io
        bytes.withUnsafeBytes { memory.bytes.copy($0, to: 0) }
    }
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(memory.bytes).part(0, byteCount) }
}

struct VolumeOptions: Sendable {
    enum Acknowledgement: String, Sendable, CaseIterable { case staged, written, durable }
    var isReadOnly = false
    var commitIntervalSeconds = 5
    var acknowledgement = Acknowledgement.staged
    var stagingByteCount: UInt64 = 16 << 20
    var indexCacheByteCount: UInt64 = 256 << 20
}
struct FormatOptions: Sendable {
    var capacityByteCount: UInt64?
    var segmentByteCount: UInt64?
}
struct MountError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
typealias HostVolume = Volume<HostDevice>

enum Checker {
    struct Options: Sendable {
        var verifiesData = false
        var rebuildsIndex = false
        var isReadOnly = false
    }
    struct Outcome: Sendable {
        var damageCount = 0
        var repairedCount = 0
    }
    static func check(_ device: HostDevice, _ options: Options, report: (String) -> Void) throws(MountError) -> Outcome {
        report("stub: nothing to check")
        return Outcome()
    }
}
enum Dump {
    enum Subject: Sendable { case superblock, segment(SegmentNumber), inode(InodeNumber), index, all }
    static func dump(_ device: HostDevice, _ subject: Subject, print: (String) -> Void) throws(MountError) { print("stub") }
    static func statistics(_ device: HostDevice) throws(MountError) -> String { "{\"stub\":{\"a\":1,\"b\":[1,2]}}" }
    static func statisticsPrometheus(_ device: HostDevice) throws(MountError) -> String { "treering_stub 1\n" }
}

private final class Node {
    var a: Attributes
    var data: [UInt8] = []
    var entries: [(name: [UInt8], inode: InodeNumber, cookie: UInt64)] = []
    var parent = InodeNumber.root
    var xattrs: [[UInt8]: [UInt8]] = [:]
    var lookups: UInt64 = 0
    init(_ a: Attributes) { self.a = a }
}
private func time() -> Timestamp {
    var t = timespec()
    clock_gettime(CLOCK_REALTIME, &t)
    return Timestamp(seconds: Int64(t.tv_sec), nanoseconds: UInt32(t.tv_nsec))
}
final class Volume<D: Device>: @unchecked Sendable {
    private var nodes: [InodeNumber: Node] = [:]
    private var next: UInt64 = 2
    private var cookie: UInt64 = 2
    private let lock = Mutex<Void>(())
    private let blocks = getenv("TREERING_STUB_BLOCK") != nil
    var isReadOnly: Bool
    private let acknowledged: Bool

    init(_ o: VolumeOptions) {
        isReadOnly = o.isReadOnly
        acknowledged = o.acknowledgement == .staged
        nodes[.root] = Node(new(.root, UInt32(S_IFDIR) | 0o755, Caller(uid: getuid(), gid: getgid(), umask: 0)))
        nodes[.root]!.lookups = 1
        nodes[.root]!.a.linkCount = 2
    }
    private func new(_ i: InodeNumber, _ mode: UInt32, _ c: Caller) -> Attributes {
        let t = time()
        return Attributes(
            inode: i, mode: mode, linkCount: mode & UInt32(S_IFMT) == UInt32(S_IFDIR) ? 2 : 1, uid: c.uid, gid: c.gid, deviceNumber: 0,
            byteCount: 0, storedByteCount: 0, accessed: t, modified: t, changed: t, born: t)
    }
    private func locked<R>(_ body: () throws(Stop) -> R) throws(Stop) -> R {
        if blocks, UInt8.random(in: 0..<4) == 0 { throw .blocked(.room) }
        lock._unsafeLock()
        defer { lock._unsafeUnlock() }
        return try body()
    }
    private func node(_ i: InodeNumber) throws(Stop) -> Node {
        guard let n = nodes[i] else { throw .failed(.stale) }
        return n
    }
    private func find(_ p: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> (Node, Int?) {
        let d = try node(p)
        guard d.a.isDirectory else { throw .failed(.notDirectory) }
        if name.count > 255 { throw .failed(.nameTooLong) }
        return (d, d.entries.firstIndex { $0.name.elementsEqual(name) })
    }
    private func touch(_ d: Node) {
        d.a.modified = time()
        d.a.changed = d.a.modified
        d.a.byteCount = UInt64(d.entries.count) * 32
    }
    private func writable() throws(Stop) { if isReadOnly { throw .failed(.readOnly) } }
    private func reap(_ i: InodeNumber) { if let n = nodes[i], n.a.linkCount == 0, n.lookups == 0 { nodes[i] = nil } }

    func lookup(_ p: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> Attributes {
        try locked { () throws(Stop) in
            let (d, at) = try find(p, name)
            guard let at else { throw .failed(.noEntry) }
            let n = try node(d.entries[at].inode)
            n.lookups += 1
            return n.a
        }
    }
    func forget(_ i: InodeNumber, _ count: UInt64) {
        lock._unsafeLock()
        defer { lock._unsafeUnlock() }
        guard let n = nodes[i] else { return }
        precondition(n.lookups >= count || i == .root, "lookup count of \(i.rawValue) falls below 0")
        n.lookups -= min(count, n.lookups)
        reap(i)
    }
    func attributes(_ i: InodeNumber) throws(Stop) -> Attributes { try locked { () throws(Stop) in try node(i).a } }
    func setAttributes(_ i: InodeNumber, _ c: AttributeChanges, _ caller: Caller) throws(Stop) -> Attributes {
        try locked { () throws(Stop) in
            try writable()
            let n = try node(i)
            let now = time()
            func t(_ x: AttributeChanges.Time) -> Timestamp { if case .at(let t) = x { t } else { now } }
            n.a.changed = now
            if let m = c.mode { n.a.mode = n.a.type | m & 0o7777 }
            if let u = c.uid { n.a.uid = u }
            if let g = c.gid { n.a.gid = g }
            if let s = c.byteCount {
                if s > 1 << 30 { throw .failed(.fileTooBig) }
                if s < n.data.count { n.data.removeLast(n.data.count - Int(s)) }
                n.data.append(contentsOf: repeatElement(0, count: Int(s) - n.data.count))
                n.a.byteCount = s
                n.a.storedByteCount = s
                n.a.modified = now
            }
            if let x = c.accessed { n.a.accessed = t(x) }
            if let x = c.modified { n.a.modified = t(x) }
            if let x = c.changed { n.a.changed = t(x) }
            return n.a
        }
    }
    func make(_ p: InodeNumber, _ name: UnsafeRawBufferPointer, _ w: NewInode, _ caller: Caller) throws(Stop) -> Attributes {
        try locked { () throws(Stop) in
            try writable()
            let (d, at) = try find(p, name)
            guard at == nil else { throw .failed(.exists) }
            guard d.a.linkCount > 0 else { throw .failed(.noEntry) }
            let i = InodeNumber(next)
            next += 1
            let n = Node(new(i, w.mode, caller))
            n.a.deviceNumber = w.deviceNumber
            n.parent = p
            n.lookups = 1
            if let t = w.target {
                n.data = Array(t)
                n.a.byteCount = UInt64(t.count)
            }
            nodes[i] = n
            d.entries.append((Array(name), i, cookie + 1))
            cookie += 1
            if n.a.isDirectory { d.a.linkCount += 1 }
            touch(d)
            return n.a
        }
    }
    func link(_ i: InodeNumber, _ p: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> Attributes {
        try locked { () throws(Stop) in
            try writable()
            let (d, at) = try find(p, name)
            guard at == nil else { throw .failed(.exists) }
            let n = try node(i)
            n.a.linkCount += 1
            n.a.changed = time()
            n.lookups += 1
            d.entries.append((Array(name), i, cookie + 1))
            cookie += 1
            touch(d)
            return n.a
        }
    }
    func unlink(_ p: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) {
        try locked { () throws(Stop) in
            try writable()
            let (d, at) = try find(p, name)
            guard let at else { throw .failed(.noEntry) }
            let n = try node(d.entries[at].inode)
            if n.a.isDirectory { throw .failed(.isDirectory) }
            drop(d, at, n)
        }
    }
    private func drop(_ d: Node, _ at: Int, _ n: Node) {
        d.entries.remove(at: at)
        if n.a.isDirectory {
            n.a.linkCount = 0
            d.a.linkCount -= 1
        } else {
            n.a.linkCount -= 1
        }
        n.a.changed = time()
        touch(d)
        reap(n.a.inode)
    }
    func removeDirectory(_ p: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) {
        try locked { () throws(Stop) in
            try writable()
            let (d, at) = try find(p, name)
            guard let at else { throw .failed(.noEntry) }
            let n = try node(d.entries[at].inode)
            guard n.a.isDirectory else { throw .failed(.notDirectory) }
            guard n.entries.isEmpty else { throw .failed(.notEmpty) }
            drop(d, at, n)
        }
    }
    func rename(
        _ p: InodeNumber, _ name: UnsafeRawBufferPointer, _ q: InodeNumber, _ newName: UnsafeRawBufferPointer, _ flags: RenameFlags
    ) throws(Stop) {
        try locked { () throws(Stop) in
            try writable()
            let (d, at) = try find(p, name)
            let (e, old) = try find(q, newName)
            guard let at else { throw .failed(.noEntry) }
            let n = try node(d.entries[at].inode)
            if flags.contains(.exchange) {
                guard let old else { throw .failed(.noEntry) }
                let m = try node(e.entries[old].inode)
                d.entries[at].inode = m.a.inode
                e.entries[old].inode = n.a.inode
                if n.a.isDirectory != m.a.isDirectory, d !== e {
                    d.a.linkCount = n.a.isDirectory ? d.a.linkCount - 1 : d.a.linkCount + 1
                    e.a.linkCount = n.a.isDirectory ? e.a.linkCount + 1 : e.a.linkCount - 1
                }
                n.parent = q
                m.parent = p
            } else {
                if let old {
                    if flags.contains(.noReplace) { throw .failed(.exists) }
                    let m = try node(e.entries[old].inode)
                    if m === n { return }
                    if m.a.isDirectory, !n.a.isDirectory { throw .failed(.isDirectory) }
                    if !m.a.isDirectory, n.a.isDirectory { throw .failed(.notDirectory) }
                    guard m.entries.isEmpty else { throw .failed(.notEmpty) }
                    drop(e, old, m)
                }
                d.entries.removeAll { $0.name.elementsEqual(name) }
                e.entries.append((Array(newName), n.a.inode, cookie + 1))
                cookie += 1
                n.parent = q
                if n.a.isDirectory, d !== e {
                    d.a.linkCount -= 1
                    e.a.linkCount += 1
                }
            }
            n.a.changed = time()
            touch(d)
            touch(e)
        }
    }
    private func list(_ i: InodeNumber, after: UInt64, count: Bool, _ body: (DirectoryEntry, Attributes) -> Bool) throws(Stop) {
        try locked { () throws(Stop) in
            let d = try node(i)
            var all = [([UInt8]("." .utf8), i, UInt64(1)), ([UInt8](".." .utf8), d.parent, UInt64(2))]
            all += d.entries.map { ($0.name, $0.inode, $0.cookie) }.sorted { $0.2 < $1.2 }
            for (name, inode, cookie) in all where cookie > after {
                guard let n = nodes[inode] else { continue }
                let taken = name.withUnsafeBytes {
                    body(DirectoryEntry(name: $0, inode: inode, type: n.a.type, cookie: cookie), n.a)
                }
                if !taken { break }
                if count, cookie > 2 { n.lookups += 1 }
            }
        }
    }
    func readDirectory(_ i: InodeNumber, after: UInt64, _ body: (DirectoryEntry) -> Bool) throws(Stop) {
        try list(i, after: after, count: false) { entry, _ in body(entry) }
    }
    func readDirectoryPlus(_ i: InodeNumber, after: UInt64, _ body: (DirectoryEntry, Attributes) -> Bool) throws(Stop) {
        try list(i, after: after, count: true, body)
    }
    func write(_ i: InodeNumber, at offset: UInt64, _ bytes: UnsafeRawBufferPointer) throws(Stop) {
        try locked { () throws(Stop) in
            try writable()
            let n = try node(i)
            let end = Int(offset) + bytes.count
            if end > 1 << 30 { throw .failed(.noSpace) }
            if end > n.data.count { n.data.append(contentsOf: repeatElement(0, count: end - n.data.count)) }
            n.data.withUnsafeMutableBytes { $0.copy(bytes, to: Int(offset)) }
            n.a.byteCount = UInt64(n.data.count)
            n.a.storedByteCount = n.a.byteCount
            n.a.modified = time()
            n.a.changed = n.a.modified
        }
    }
    func status() throws(Stop) -> FileSystemStatus {
        FileSystemStatus(totalByteCount: 1 << 40, freeByteCount: 1 << 39, availableByteCount: 1 << 39, inodeCount: 1 << 30, freeInodeCount: 1 << 29)
    }
    func xattr(_ i: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) -> XattrValue {
        try locked { () throws(Stop) in
            guard let v = try node(i).xattrs[Array(name)] else { throw .failed(.noData) }
            return v.count > 100 ? .plan(ReadPlan(v[...], blocks)) : .bytes(v)
        }
    }
    func xattrNames(_ i: InodeNumber) throws(Stop) -> [UInt8] {
        try locked { () throws(Stop) in try node(i).xattrs.keys.sorted { $0.lexicographicallyPrecedes($1) }.flatMap { $0 + [0] } }
    }
    func setXattr(
        _ i: InodeNumber, _ name: UnsafeRawBufferPointer, _ v: UnsafeRawBufferPointer, _ flags: SetXattrFlags
    ) throws(Stop) {
        try locked { () throws(Stop) in
            try writable()
            let n = try node(i)
            let has = n.xattrs[Array(name)] != nil
            if flags.contains(.create), has { throw .failed(.exists) }
            if flags.contains(.replace), !has { throw .failed(.noData) }
            n.xattrs[Array(name)] = Array(v)
            n.a.changed = time()
        }
    }
    func removeXattr(_ i: InodeNumber, _ name: UnsafeRawBufferPointer) throws(Stop) {
        try locked { () throws(Stop) in
            try writable()
            let n = try node(i)
            guard n.xattrs.removeValue(forKey: Array(name)) != nil else { throw .failed(.noData) }
            n.a.changed = time()
        }
    }
    func read(_ i: InodeNumber, at offset: UInt64, _ count: Int) throws(Stop) -> ReadPlan {
        try locked { () throws(Stop) in
            let n = try node(i)
            let start = min(Int(offset), n.data.count)
            return ReadPlan(n.data[start..<min(start + count, n.data.count)], blocks)
        }
    }
    func readLink(_ i: InodeNumber) throws(Stop) -> ReadPlan {
        try locked { () throws(Stop) in ReadPlan(try node(i).data[...], blocks) }
    }
    private func later(_ mayWait: Bool, _ body: @escaping @Sendable () -> Void) {
        if mayWait { return body() }
        var thread = pthread_t()
        let box = Unmanaged.passRetained(Box(body))
        pthread_create(&thread, nil, { argument in
            let body = Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue().body
            usleep(200)
            body()
            return nil
        }, box.toOpaque())
        pthread_detach(thread)
    }
    func execute(_ plan: ReadPlan, mayWait: Bool, _ done: @escaping @Sendable (ReadPlan, Errno?) -> Void) {
        if !plan.needsIO { return done(plan, nil) }
        later(mayWait) { done(plan, nil) }
    }
    func recycle(_ plan: ReadPlan) {}
    func sync(mayWait: Bool, _ done: @escaping @Sendable (Errno?) -> Void) { later(mayWait) { done(nil) } }
    var acknowledgesStaged: Bool { acknowledged }
    func whenAcknowledged(mayWait: Bool, _ done: @escaping @Sendable (Errno?) -> Void) { later(mayWait) { done(nil) } }
    func park(_ blocker: Blocker, _ attempt: Attempt?, mayWait: Bool, _ retry: @escaping @Sendable (Attempt) -> Void) {
        later(mayWait) { retry(Attempt()) }
    }
    var maxWriteByteCount: Int { 1 << 20 }
    func statistics() -> String { "{\"stub\":{\"nodes\":\(nodes.count)}}" }
    func statisticsPrometheus() -> String { "treering_nodes \(nodes.count)\n" }
    func unmount() throws(Errno) {}
}
private final class Box {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
}
extension Volume where D == HostDevice {
    static func format(_ device: HostDevice, _ options: FormatOptions) throws(MountError) {
        do throws(Errno) { device.close(try device.open(.superblock, create: true)) } catch { throw MountError("format: \(error)") }
    }
    static func mount(_ device: HostDevice, _ options: VolumeOptions, log: LogSink) throws(MountError) -> HostVolume {
        HostVolume(options)
    }
}
