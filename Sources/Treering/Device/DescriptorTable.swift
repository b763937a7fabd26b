// Decides which files of a store have descriptors. A store may have millions of segments, but a process only a few
// thousand descriptors. So a file is opened when it is used, and the least recently used file is closed for it. Only
// HostFiles uses this.

import Glibc
import Synchronization

/// Files by number, and the bounded table of places for those that have descriptors.
///
/// - A file that is in use keeps its descriptors until the use ends.
/// - A file with writes that no flush has covered is closed only if there is no other, and is flushed first: Linux
///   reports a failed write only to descriptors that were open then. If that flush fails, the next flush of the file
///   reports the error.
/// - Files other than segments stay open from `open` to `close`. So do the segments that `keepOpen` names.
///
/// A use costs two atomic operations and no lock as long as the file is open.
final class DescriptorTable: @unchecked Sendable {
    /// The two descriptors of an open file: one through the page cache, one for direct I/O. −1 where there is none.
    struct Descriptors {
        var buffered: Int32
        var direct: Int32

        static let none = Descriptors(buffered: -1, direct: -1)

        init(buffered: Int32, direct: Int32) {
            self.buffered = buffered
            self.direct = direct
        }

        fileprivate init(_ entry: UInt64) {
            buffered = Int32(truncatingIfNeeded: entry)
            direct = Int32(truncatingIfNeeded: entry >> 32)
        }

        fileprivate var entry: UInt64 {
            UInt64(UInt32(bitPattern: buffered)) | UInt64(UInt32(bitPattern: direct)) << 32
        }

        var isOpen: Bool { buffered >= 0 }

        func close() {
            if direct >= 0 { Glibc.close(direct) }
            if buffered >= 0 { Glibc.close(buffered) }
        }
    }

    /// A file from `open` to `close`.
    private struct File: ~Copyable {
        let descriptors = Atomic<UInt64>(Descriptors.none.entry)
        /// How many uses are under way. Far below zero while the descriptors are being closed.
        let useCount = Atomic<Int32>(0)
        /// Whether it was used since the hand of the clock last passed it.
        let wasUsed = Atomic(false)
        /// Whether it was written to and not flushed since.
        let isUnsynced = Atomic(false)
        /// The error of a flush at closing, which no caller has seen yet; 0 where there is none.
        let lostError = Atomic<Int32>(0)
        /// The place of its descriptors, while it has some.
        var place: Int32 = -1
        var name: StoreFile
        var isPinned: Bool
        var isKept = false
        /// From `open` to `close`.
        var isOpen = true

        init(_ name: StoreFile) {
            self.name = name
            isPinned = name.keepsDescriptors
        }
    }

    /// The most files that may be open: all segments of the largest store, and a few more.
    static let fileCountLimit = 1 << 24 + 4096
    private static let chunkFileCount = 4096
    /// Added to `useCount` while a file is being closed.
    private static let closing: Int32 = -1 << 30
    /// How long a use waits if the system has no descriptor left.
    private static let patienceNanoseconds: UInt64 = 5_000_000_000

    /// How many files may have descriptors at a time.
    let placeCount: Int
    /// Opens a file by name.
    private let openFile: @Sendable (StoreFile, _ create: Bool) throws(Errno) -> Descriptors
    /// Called at each change of a place, while nothing uses that place. Set once, before the first `open`.
    nonisolated(unsafe) var placeChanged: (@Sendable (_ place: Int, Descriptors) -> Void)?

    private let monitor = Monitor()
    private let idle: Condition
    private let waiterCount = Atomic(0)
    /// Files lie in chunks, so that a file never moves in memory.
    private let chunks: UnsafeMutablePointer<Atomic<UInt>>
    // Under the monitor's lock.
    private var fileCount: Int32 = 0
    private var freeFiles: [Int32] = []
    private var freePlaces: [Int32]
    /// The file at each place, −1: none.
    private var owners: [Int32]
    private var pinnedCount = 0
    /// Segments that stay open.
    private var kept: [DeviceFile] = []
    private var hand = 0
    private var isClosed = false
    private var missCount = 0

    init(placeCount: Int, open: @escaping @Sendable (StoreFile, _ create: Bool) throws(Errno) -> Descriptors) {
        self.placeCount = placeCount
        openFile = open
        idle = Condition(monitor)
        freePlaces = (0..<Int32(placeCount)).reversed()
        owners = Array(repeating: -1, count: placeCount)
        let count = Self.fileCountLimit / Self.chunkFileCount
        chunks = .allocate(capacity: count)
        for index in 0..<count { (chunks + index).initialize(to: Atomic(0)) }
    }

    deinit {
        closeAll()
        for index in 0..<Self.fileCountLimit / Self.chunkFileCount {
            UnsafeMutablePointer<File>(bitPattern: chunks[index].load(ordering: .relaxed))?.deallocate()
        }
        chunks.deallocate()
    }

    /// Closes all files that are still open. No file may be in use.
    func closeAll() {
        monitor.withLock {
            if isClosed { return }
            isClosed = true
            for owner in owners where owner >= 0 {
                Descriptors(self[owner].pointee.descriptors.exchange(Descriptors.none.entry, ordering: .relaxed))
                    .close()
            }
        }
    }

    /// `openFileCount`: how many files have descriptors. `reopenedCount`: how often a closed file was opened again.
    var openFileCount: Int { monitor.withLock { placeCount - freePlaces.count } }
    var reopenedCount: Int { monitor.withLock { missCount } }

    @inline(__always)
    private subscript(_ number: Int32) -> UnsafeMutablePointer<File> {
        precondition(number >= 0 && Int(number) < Self.fileCountLimit)
        let chunk = chunks[Int(number) / Self.chunkFileCount].load(ordering: .acquiring)
        precondition(chunk != 0, "a device file that is not open")
        return UnsafeMutablePointer<File>(bitPattern: chunk)! + Int(number) % Self.chunkFileCount
    }

    // MARK: Use

    /// Begins a use of a file. Nil if the file has no descriptors now.
    @inline(__always)
    private func beginQuickly(_ file: UnsafeMutablePointer<File>) -> Descriptors? {
        if file.pointee.useCount.wrappingAdd(1, ordering: .acquiringAndReleasing).oldValue >= 0 {
            let found = Descriptors(file.pointee.descriptors.load(ordering: .acquiring))
            if found.isOpen {
                if !file.pointee.wasUsed.load(ordering: .relaxed) {
                    file.pointee.wasUsed.store(true, ordering: .relaxed)
                }
                return found
            }
        }
        release(file)
        return nil
    }

    /// Begins a use if that is possible without waiting. Nil if every place is in use, or the system has no descriptor
    /// left.
    @inline(__always)
    func beginWithoutWaiting(_ file: DeviceFile) -> Descriptors? {
        beginQuickly(self[file.rawValue]) ?? reopen(file)
    }

    private func reopen(_ file: DeviceFile) -> Descriptors? {
        try? monitor.withLock { reopenWithLock(file, mayWait: false) }.get()
    }

    /// Begins a use. Waits for a place if need be, and for some seconds if the system has no descriptor left. The
    /// caller must call `end`.
    @inline(__always)
    func begin(_ file: DeviceFile) throws(Errno) -> Descriptors {
        if let found = beginQuickly(self[file.rawValue]) { return found }
        return try reopenPatiently(file)
    }

    private func reopenPatiently(_ file: DeviceFile) throws(Errno) -> Descriptors {
        let start = monotonicNanoseconds()
        var isFirst = true
        while true {
            let error: Errno
            switch monitor.withLock({ reopenWithLock(file, mayWait: true, mayMakeRoom: isFirst) }) {
            case .success(let found): return found
            case .failure(let failure): error = failure
            }
            let isOver = monotonicNanoseconds() - start > Self.patienceNanoseconds
            guard error.isShortage, !isOver else { throw error }
            isFirst = false
            rest(nanoseconds: 10_000_000)
        }
    }

    /// Ends a use. `isUnsynced`: it may have written something that no flush has covered yet.
    @inline(__always)
    func end(_ file: DeviceFile, isUnsynced: Bool) {
        let file = self[file.rawValue]
        if isUnsynced { file.pointee.isUnsynced.store(true, ordering: .releasing) }
        release(file)
    }

    @inline(__always)
    private func release(_ file: UnsafeMutablePointer<File>) {
        let left = file.pointee.useCount.wrappingSubtract(1, ordering: .sequentiallyConsistent).newValue
        if left == 0 && waiterCount.load(ordering: .sequentiallyConsistent) > 0 { tellWaiters() }
    }

    private func tellWaiters() { monitor.withLock { idle.broadcast() } }

    /// Call before the flush of a file in use. The flush covers all writes whose use has ended. Gives the error that
    /// the flush must report whatever its own outcome is (of a flush at closing); 0 where there is none.
    @inline(__always)
    func beginSync(_ file: DeviceFile) -> Int32 {
        let file = self[file.rawValue]
        file.pointee.isUnsynced.store(false, ordering: .sequentiallyConsistent)
        if file.pointee.lostError.load(ordering: .relaxed) == 0 { return 0 }
        return file.pointee.lostError.exchange(0, ordering: .relaxed)
    }

    /// Whether the next flush of a file must report an earlier error.
    @inline(__always)
    func hasLostError(_ file: DeviceFile) -> Bool {
        self[file.rawValue].pointee.lostError.load(ordering: .relaxed) != 0
    }

    /// The place of a file. The file must be in use.
    @inline(__always)
    func place(of file: DeviceFile) -> Int { Int(self[file.rawValue].pointee.place) }

    // MARK: Opening and closing

    /// Opens a file. EMFILE if files that stay open take every place.
    func open(_ name: StoreFile, create: Bool) throws(Errno) -> DeviceFile {
        let reserved = monitor.withLock { () -> Int32? in
            precondition(!isClosed, "a call after the end of the device")
            guard let place = waitForPlace() else { return nil }
            if name.keepsDescriptors { pinnedCount += 1 }
            return place
        }
        guard let place = reserved else { throw Errno(EMFILE) }
        do throws(Errno) {
            let descriptors = try openMakingRoom(name, create: create)
            return DeviceFile(rawValue: monitor.withLock { add(name, descriptors, at: place) })
        } catch {
            monitor.withLock {
                if name.keepsDescriptors { pinnedCount -= 1 }
                freePlaces.append(place)
                idle.broadcast()
            }
            throw error
        }
    }

    /// Opens a file. If the process or the system has no descriptor left, closes another first, but not for a new file:
    /// a new file can wait.
    private func openMakingRoom(_ name: StoreFile, create: Bool) throws(Errno) -> Descriptors {
        do throws(Errno) { return try openFile(name, create) } catch {
            guard !create, error.isShortageOfFiles, makeRoom() else { throw error }
            return try openFile(name, create)
        }
    }

    /// Closes a file that is not in use, if there is one, to gain a descriptor.
    func makeRoom() -> Bool {
        monitor.withLock {
            guard let place = takeFromAnother(maySync: true) else { return false }
            freePlaces.append(place)
            return true
        }
    }

    private func add(_ name: StoreFile, _ descriptors: Descriptors, at place: Int32) -> Int32 {
        let number: Int32
        if let free = freeFiles.popLast() {
            number = free
        } else {
            number = fileCount
            precondition(Int(number) < Self.fileCountLimit, "more files than a store can have")
            let chunk = Int(number) / Self.chunkFileCount
            if chunks[chunk].load(ordering: .relaxed) == 0 {
                let files = UnsafeMutablePointer<File>.allocate(capacity: Self.chunkFileCount)
                chunks[chunk].store(UInt(bitPattern: files), ordering: .releasing)
            }
            fileCount += 1
        }
        self[number].initialize(to: File(name))
        install(descriptors, number, at: place)
        return number
    }

    private func install(_ descriptors: Descriptors, _ number: Int32, at place: Int32) {
        owners[Int(place)] = number
        let file = self[number]
        file.pointee.place = place
        file.pointee.wasUsed.store(true, ordering: .relaxed)
        placeChanged?(Int(place), descriptors)
        file.pointee.descriptors.store(descriptors.entry, ordering: .releasing)
    }

    func close(_ file: DeviceFile) {
        monitor.withLock {
            let entry = self[file.rawValue]
            precondition(entry.pointee.isOpen, "a device file closed twice")
            precondition(entry.pointee.useCount.load(ordering: .acquiring) == 0, "a device file closed while in use")
            entry.pointee.isOpen = false
            let found = Descriptors(
                entry.pointee.descriptors.exchange(Descriptors.none.entry, ordering: .acquiringAndReleasing))
            if entry.pointee.isPinned { pinnedCount -= 1 }
            kept.removeAll { $0 == file }
            if found.isOpen {
                vacate(entry, found)
                freePlaces.append(entry.pointee.place)
                idle.broadcast()
            }
            freeFiles.append(file.rawValue)
        }
    }

    /// Keeps exactly these segments open (only the first of them if there are few places). Work that must always be
    /// possible must not depend on whether a file can be opened.
    func keepOpen(_ files: [DeviceFile]) {
        let chosen = Array(files.prefix(max(2, placeCount / 4)))
        monitor.withLock {
            if chosen == kept { return }
            for file in kept { self[file.rawValue].pointee.isKept = false }
            for file in chosen { self[file.rawValue].pointee.isKept = true }
            kept = chosen
        }
        // A segment that cannot be opened now is tried again at the next call.
        for file in chosen where beginWithoutWaiting(file) != nil { end(file, isUnsynced: false) }
    }

    /// Notes that a file has another name now.
    func rename(_ name: StoreFile, to newName: StoreFile) {
        monitor.withLock {
            // Only files that keep their descriptors are ever renamed.
            for owner in owners where owner >= 0 && self[owner].pointee.name == name {
                let file = self[owner]
                file.pointee.name = newName
                if file.pointee.isPinned && !newName.keepsDescriptors {
                    file.pointee.isPinned = false
                    pinnedCount -= 1
                }
            }
        }
    }

    // MARK: Under the lock

    private func reopenWithLock(
        _ number: DeviceFile, mayWait: Bool, mayMakeRoom: Bool = true
    ) -> Result<Descriptors, Errno> {
        precondition(!isClosed, "a call after the end of the device")
        let file = self[number.rawValue]
        while true {
            let present = Descriptors(file.pointee.descriptors.load(ordering: .acquiring))
            if present.isOpen {
                file.pointee.useCount.add(1, ordering: .acquiringAndReleasing)
                return .success(present)
            }
            precondition(file.pointee.isOpen && !file.pointee.isPinned, "a device file that is not open")
            guard let place = freePlaces.popLast() ?? takeFromAnother(maySync: mayWait) else {
                guard mayWait, let place = waitForPlace() else { return .failure(Errno(EMFILE)) }
                // Another thread may have opened it meanwhile.
                freePlaces.append(place)
                continue
            }
            do throws(Errno) {
                let descriptors = try openWithLock(file.pointee.name, mayWait, mayMakeRoom)
                missCount += 1
                file.pointee.useCount.add(1, ordering: .acquiringAndReleasing)
                install(descriptors, number.rawValue, at: place)
                return .success(descriptors)
            } catch {
                freePlaces.append(place)
                return .failure(error)
            }
        }
    }

    /// Opens a file. Closes another for it only with `mayMakeRoom`: during a lasting shortage, closing one after
    /// another does not help.
    private func openWithLock(_ name: StoreFile, _ mayWait: Bool, _ mayMakeRoom: Bool) throws(Errno) -> Descriptors {
        do throws(Errno) { return try openFile(name, false) } catch {
            guard mayMakeRoom, error.isShortageOfFiles, let place = takeFromAnother(maySync: mayWait) else {
                throw error
            }
            freePlaces.append(place)
            return try openFile(name, false)
        }
    }

    /// Gives a place for a file. Waits for the end of a use if all places are in use. Nil if all are taken for good.
    private func waitForPlace() -> Int32? {
        waiterCount.add(1, ordering: .sequentiallyConsistent)
        defer { waiterCount.subtract(1, ordering: .sequentiallyConsistent) }
        while true {
            if let place = freePlaces.popLast() ?? takeFromAnother(maySync: true) { return place }
            if pinnedCount + kept.count >= placeCount { return nil }
            idle.wait()
        }
    }

    /// Closes the least recently used file and gives its place. The clock algorithm finds it: the hand passes a file
    /// once that was used since its last round. A file with unsynced writes is taken only if there is no other and
    /// `maySync` allows it.
    private func takeFromAnother(maySync: Bool) -> Int32? {
        for mayBeUnsynced in maySync ? [false, true] : [false] {
            for _ in 0..<2 * placeCount {
                hand = hand + 1 == placeCount ? 0 : hand + 1
                let owner = owners[hand]
                guard owner >= 0 else { continue }
                let file = self[owner]
                guard !file.pointee.isPinned, !file.pointee.isKept, file.pointee.useCount.load(ordering: .relaxed) == 0,
                    mayBeUnsynced || !file.pointee.isUnsynced.load(ordering: .acquiring),
                    !file.pointee.wasUsed.exchange(false, ordering: .relaxed)
                else { continue }
                if takeDescriptors(of: file, mayBeUnsynced) { return Int32(hand) }
            }
        }
        return nil
    }

    private func takeDescriptors(of file: UnsafeMutablePointer<File>, _ mayBeUnsynced: Bool) -> Bool {
        let taken = file.pointee.useCount.compareExchange(
            expected: 0, desired: Self.closing, ordering: .acquiringAndReleasing)
        guard taken.exchanged else { return false }
        defer { file.pointee.useCount.subtract(Self.closing, ordering: .acquiringAndReleasing) }
        let isUnsynced = file.pointee.isUnsynced.load(ordering: .acquiring)
        if isUnsynced && !mayBeUnsynced { return false }
        let found = Descriptors(file.pointee.descriptors.load(ordering: .acquiring))
        if isUnsynced {
            file.pointee.isUnsynced.store(false, ordering: .relaxed)
            while fdatasync(found.buffered) != 0 {
                if errno == EINTR { continue }
                file.pointee.lostError.store(errno, ordering: .relaxed)
                break
            }
        }
        file.pointee.descriptors.store(Descriptors.none.entry, ordering: .releasing)
        vacate(file, found)
        return true
    }

    private func vacate(_ file: UnsafeMutablePointer<File>, _ descriptors: Descriptors) {
        owners[Int(file.pointee.place)] = -1
        placeChanged?(Int(file.pointee.place), .none)
        descriptors.close()
    }
}

extension StoreFile {
    /// Files that are few, or that must not be looked up by name again, stay open. Segments are many.
    fileprivate var keepsDescriptors: Bool {
        if case .segment = self { return false }
        return true
    }
}

extension Errno {
    /// Whether the process or the system has no descriptor left.
    fileprivate var isShortageOfFiles: Bool { rawValue == EMFILE || rawValue == ENFILE }
}
