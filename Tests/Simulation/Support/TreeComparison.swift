// Compares everything that a volume shows with the model: names, attributes, contents, extended attributes.

@testable import Treering

struct TreeComparison {
    let volume: Volume<SimulatedDevice>
    let model: ModelFileSystem
    private let caller = Caller(uid: 0, gid: 0, umask: 0, identity: .privileged)

    /// The first difference, nil where there is none.
    static func firstDifference(_ volume: Volume<SimulatedDevice>, _ model: ModelFileSystem) -> String? {
        let comparison = TreeComparison(volume: volume, model: model)
        var seen: Set<UInt64> = []
        var open: [UInt64] = [ModelFileSystem.root]
        // What has no name but is in use counts as well.
        open.append(contentsOf: model.inodes.filter { $0.value.linkCount == 0 }.keys.sorted())
        while let number = open.popLast() {
            guard seen.insert(number).inserted, let inode = model.inodes[number] else { continue }
            if let difference = comparison.inode(number, inode) { return "inode \(number): \(difference)" }
            open.append(contentsOf: inode.entries.values)
        }
        return nil
    }

    private func ask(_ operation: Operation) -> Outcome {
        do throws(Errno) {
            switch try volume.perform(operation.body(caller)).value {
            case .outcome(let outcome): return outcome
            case .plan(let plan): return volume.outcome(of: plan, mayWait: true)
            }
        } catch { return .failed(error.rawValue) }
    }

    private func differs(_ operation: Operation, _ expected: Outcome) -> String? {
        let found = ask(operation)
        return found == expected ? nil : "\(operation) gives \(found.difference(from: expected))"
    }

    private func inode(_ number: UInt64, _ inode: ModelInode) -> String? {
        if let problem = differs(.attributes(number), .attributes(inode.attributes(number))) { return problem }
        if let problem = differs(.xattrNames(number), .names(inode.xattrs.keys.sorted())) { return problem }
        for (name, value) in inode.xattrs {
            if let problem = differs(.xattr(number, name), .bytes(value)) { return problem }
        }
        if inode.isDirectory { return directory(number, inode) }
        return inode.isRegular || inode.isSymbolicLink ? contents(number, inode) : nil
    }

    private func directory(_ number: UInt64, _ inode: ModelInode) -> String? {
        let entries = inode.entries.sorted { $0.key < $1.key }.map { name, child in
            ListedEntry(name: name, inode: child, type: model.inodes[child]?.type ?? 0)
        }
        return differs(.readDirectory(number, step: 64), .entries(entries))
    }

    /// Small files whole; of large ones what was written, and what is around it.
    private func contents(_ number: UInt64, _ inode: ModelInode) -> String? {
        let step = 128 << 10
        func differs(at offset: UInt64, _ byteCount: Int) -> String? {
            guard offset < inode.byteCount else { return nil }
            let count = Int(min(UInt64(byteCount), inode.byteCount - offset))
            return self.differs(
                .read(number, offset: offset, byteCount: byteCount), .bytes(inode.bytes.read(at: offset, count)))
        }
        if inode.byteCount <= 2 << 20 {
            for offset in stride(from: 0, to: inode.byteCount, by: step) {
                if let problem = differs(at: offset, step) { return problem }
            }
            return nil
        }
        var covered: UInt64 = 0
        for block in inode.bytes.blockNumbers {
            let start = block * ModelBytes.blockByteCount
            if start < covered { continue }
            let before = start > 5000 ? start - 5000 : 0
            if let problem = differs(at: before, step) { return problem }
            covered = before + UInt64(step) - 5000
        }
        return differs(at: inode.byteCount - 100, 200)
    }
}
